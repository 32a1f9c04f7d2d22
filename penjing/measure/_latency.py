"""Time: one network alone, and two networks in turns."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import Measurement, UsageError, compare
from penjing.measure._clock import Stopwatch, check_turns, measurement, take_turns
from penjing.measure._state import dtype_of
from penjing.runtimes import ExampleInputs, device_of, placed, prepare, steady

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """`ratio` = median time of a / median time of b (2.0: b takes half the time), in [low, high].

    The interval is the 95% percentile bootstrap over paired rounds (Efron & Tibshirani, An Introduction to
    the Bootstrap, 1993, section 13.3). It covers the scatter of this run, not other machines, batch sizes or
    days.
    """

    ratio: float
    low: float
    high: float
    a: Measurement
    b: Measurement

    def __post_init__(self) -> None:
        if not (self.ratio > 0 and 0 < self.low <= self.high):
            raise UsageError(f"no speed-up: ratio {self.ratio}, interval [{self.low}, {self.high}]")

    def __str__(self) -> str:
        return f"{self.ratio:.2f}x [{self.low:.2f}, {self.high:.2f}] at batch {self.a.batch_size}"

    def to_dict(self) -> dict[str, Any]:
        figures = {"ratio": self.ratio, "low": self.low, "high": self.high}
        return figures | {"a": self.a.to_dict(), "b": self.b.to_dict()}


def latency(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    runtime: str = "eager",
    batch_size: int | None = None,
    repeats: int = 50,
    warmup: int = 20,
    seconds: float = 10.0,
    threads: int | None = None,
    device: torch.device | str | None = None,
    stopwatch: Stopwatch | None = None,
) -> Measurement:
    """Milliseconds of one forward on one batch: the median of `repeats` readings, and their MAD.

    The network runs in eval and inference mode with denormals flushed, on `threads` threads (None: torch's
    present number). Once the readings exceed `seconds` in total they stop, after at least 5; the measurement
    says how many were made. It is not throughput under load, and leaves out copying inputs to the device.
    `runtime` is eager, compile, onnx or openvino; the network is exported or compiled once before, untimed.
    """
    check_turns(repeats, warmup, seconds)
    with ExitStack() as stack:
        one = prepare(
            model, example_inputs, runtime=runtime, threads=threads, batch_size=batch_size, device=device
        )
        stack.callback(one.close)
        stack.enter_context(steady(threads))
        (times,) = take_turns([one], rounds=repeats, warmup=warmup, seconds=seconds, stopwatch=stopwatch)
        return measurement("latency", "ms", times, model, one)


def speedup(
    model_a: nn.Module,
    model_b: nn.Module,
    example_inputs: ExampleInputs,
    *,
    batch_size: int | None = None,
    rounds: int = 50,
    warmup: int = 20,
    seconds: float = 20.0,
    runtime: str = "eager",
    threads: int | None = None,
    device: torch.device | str | None = None,
    stopwatch: Stopwatch | None = None,
) -> Speedup:
    """How many times faster `model_b` is than `model_a`, from interleaved runs: A B, B A, A B and so on.

    Taking turns spreads the machine's drift (heat, neighbours) over both. At most `rounds` rounds; fewer, but
    at least 5, when they exceed `seconds` in total. UsageError when the two differ in device or dtype.
    """
    check_turns(rounds, warmup, seconds)
    models = [placed(model, device) for model in (model_a, model_b)]
    _refuse_different_environments(*models)
    with ExitStack() as stack:
        two = []
        for model in models:
            one = prepare(model, example_inputs, runtime=runtime, threads=threads, batch_size=batch_size)
            stack.callback(one.close)
            two.append(one)
        stack.enter_context(steady(threads))
        times = take_turns(two, rounds=rounds, warmup=warmup, seconds=seconds, stopwatch=stopwatch)
        taken = zip(times, models, two, strict=True)
        a, b = (measurement("latency", "ms", *each) for each in taken)
    low, high = _interval(*times)
    return Speedup(ratio=compare(a, b), low=low, high=high, a=a, b=b)


def eta(speedup: float, macs_before: int, macs_after: int) -> float:
    """The share of a cut in MACs that arrives as time: speed-up / (MACs before / MACs after).

    1 means that time fell as much as computation did; below 1 memory traffic or overhead held it back.

    >>> eta(1.5, 400, 200)
    0.75
    """
    if min(speedup, macs_before, macs_after) <= 0:
        raise UsageError(f"eta needs positive figures, got {speedup}, {macs_before} and {macs_after}")
    return speedup * macs_after / macs_before


def _refuse_different_environments(a: nn.Module, b: nn.Module) -> None:
    for name, told in (("device", device_of), ("dtype", dtype_of)):
        left, right = told(a), told(b)
        if left != right:
            raise UsageError(
                f"no speed-up between two environments: {name} is {left} in one network and {right} in the "
                f"other; bring both to the same {name}, or pass device="
            )


def _interval(times_a: list[float], times_b: list[float]) -> tuple[float, float]:
    """95% percentile bootstrap of the ratio of medians; a resample draws rounds, so pairs stay together."""
    a, b = np.asarray(times_a), np.asarray(times_b)
    drawn = np.random.default_rng(0).integers(len(a), size=(_RESAMPLES, len(a)))
    ratios = np.median(a[drawn], axis=1) / np.median(b[drawn], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)
