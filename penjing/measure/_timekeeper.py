"""Many networks timed against one, whatever else the machine does meanwhile."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np
from torch import nn

from penjing.core import UsageError
from penjing.measure._clock import Stopwatch, device_name, undisturbed
from penjing.runtimes import ExampleInputs, NodeTime, Prepared, prepare, steady, versions_of

ROUNDS = 12
PROFILED = 8  # forwards whose operators are timed
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One network: its milliseconds, and its operators' shapes (inputs and weights first) and milliseconds by key,
    all as if the machine were as fast as when the reference was first timed: the mean of its middle half of readings
    over the reference's. `spread` is the median absolute deviation of that ratio between rounds, as a share.
    """

    milliseconds: float
    spread: float
    operators: Mapping[str, tuple[Shapes, float]]


@dataclass(slots=True, kw_only=True)
class Timekeeper:
    """Times networks on one runtime, each in turns with a reference that stays; use it in a with statement.

    A machine that slows down slows both, so their ratio stays. `milliseconds` are the reference's. `form` is what every
    other network becomes before it is timed.
    """

    reference: nn.Module
    example_inputs: ExampleInputs
    runtime: str = "eager"
    batch_size: int | None = None
    threads: int | None = None
    rounds: int = ROUNDS
    profiled: int = PROFILED
    stopwatch: Stopwatch | None = None
    form: Callable[[nn.Module], nn.Module] | None = None
    milliseconds: float = field(default=0.0, init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _placed: Prepared | None = field(default=None, init=False)
    _pace: Mapping[str, float] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._placed = stack.enter_context(closing(self._prepared(self.reference)))
            watch = self._watch(self._placed)
            with steady(self._placed.threads):
                for _ in range(3):
                    self._placed.run()
                self.milliseconds = median(watch(self._placed.run) for _ in range(2 * self.rounds))
            self._pace = {n.key: typical(n.milliseconds) for n in self._placed.profile(2 * self.profiled)}
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._placed = None
        self._stack.close()

    @property
    def place(self) -> dict[str, Any]:
        """Machine, runtime with its versions, threads, batch size and clock: times of two places do not compare."""
        if self._placed is None:
            raise UsageError(
                "a Timekeeper has a place inside a with statement: with Timekeeper(...) as keeper"
            )
        one = self._placed
        return {
            "device": device_name(one.device),
            "cores": os.cpu_count(),
            "runtime": one.runtime,
            "versions": versions_of(one.runtime),
            "threads": one.threads,
            "batch_size": one.batch_size,
            "clock": getattr(self._watch(one), "__name__", "own"),
            **({"form": getattr(self.form, "__name__", "own")} if self.form is not None else {}),
        }

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        """One network's timing; its operators only where they are asked for and the runtime tells them."""
        if self._placed is None:
            raise UsageError("a Timekeeper times inside a with statement: with Timekeeper(...) as keeper")
        with closing(self._prepared(model if self.form is None else self.form(model))) as placed:
            before, taken = self._turns(self._placed, placed)
            middle = midmean(taken) / midmean(before)
            ratios = np.divide(taken, before)
            spread = float(np.median(np.abs(ratios - np.median(ratios)))) / middle
            found = self._operators(self._placed, placed) if operators else {}
        return Timing(milliseconds=middle * self.milliseconds, spread=spread, operators=found)

    def _prepared(self, model: nn.Module) -> Prepared:
        return prepare(
            model,
            self.example_inputs,
            runtime=self.runtime,
            threads=self.threads,
            batch_size=self.batch_size,
        )

    def _watch(self, placed: Prepared) -> Stopwatch:
        return self.stopwatch or undisturbed(placed.device, placed.threads)

    def _turns(self, reference: Prepared, placed: Prepared) -> tuple[list[float], list[float]]:
        """Milliseconds of both, round by round, every other one backwards."""
        watch, taken = self._watch(placed), list[tuple[float, float]]()
        with steady(reference.threads):
            for one in (reference, placed) * 2:
                one.run()
            for number in range(self.rounds):
                order = (reference, placed) if number % 2 == 0 else (placed, reference)
                times = {id(one): watch(one.run) for one in order}
                taken.append((times[id(reference)], times[id(placed)]))
        return [one for one, _ in taken], [other for _, other in taken]

    def _operators(self, reference: Prepared, placed: Prepared) -> dict[str, tuple[Shapes, float]]:
        """Operators' times, in turns with the reference's, which tell how fast the machine is now."""
        half = max(2, self.profiled // 2)
        parts = [(reference.profile(half), placed.profile(half)) for _ in range(2)]
        now = _merged([part[0] for part in parts])
        slower = [typical(times) / self._pace[key] for key, (_, times) in now.items() if self._pace.get(key)]
        factor = float(np.median(slower)) if slower else 1.0
        return {
            key: (node.inputs + node.outputs, typical(times) / factor)
            for key, (node, times) in _merged([part[1] for part in parts]).items()
        }


def midmean(readings: Sequence[float]) -> float:
    """The mean of the middle half: as steady as a mean where readings scatter evenly, and deaf to a few outliers."""
    cut = len(readings) // 4
    return float(np.mean(np.sort(readings)[cut : len(readings) - cut]))


def typical(readings: Any) -> float:
    """The lower quartile: what slows a reading down on a shared machine only ever slows it down."""
    return float(np.percentile(np.asarray(readings), 25))


def _merged(profiles: list[tuple[NodeTime, ...]]) -> dict[str, tuple[NodeTime, tuple[float, ...]]]:
    found: dict[str, tuple[NodeTime, tuple[float, ...]]] = {}
    for profile in profiles:
        for node in profile:
            before = found[node.key][1] if node.key in found else ()
            found[node.key] = node, before + node.milliseconds
    return found
