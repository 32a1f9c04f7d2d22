"""Steady conditions for a network, and readings taken in turns."""

import gc
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from statistics import median

import torch
from torch import nn

from penjing.core import Measurement, UsageError
from penjing.measure._inputs import ExampleInputs, as_call, batch_of, forward, map_tensors, rebatch
from penjing.measure._state import device_of, dtype_of, placed, untouched

Call = Callable[[], object]
Stopwatch = Callable[[Call], float]  # runs the call once; the milliseconds it took

FEWEST = 5
_SETTLED = 3


def _eager(model: nn.Module, example_inputs: ExampleInputs) -> Call:
    args, kwargs = as_call(example_inputs)
    return lambda: model(*args, **kwargs)


RUNTIMES: Mapping[str, Callable[[nn.Module, ExampleInputs], Call]] = {"eager": _eager}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network with its inputs, both in place for a named runtime."""

    model: nn.Module
    inputs: ExampleInputs
    runtime: str

    @property
    def call(self) -> Call:
        return RUNTIMES[self.runtime](self.model, self.inputs)

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    def measurement(self, metric: str, unit: str, readings: Sequence[float]) -> Measurement:
        """Median and median absolute deviation of the readings, with the environment as it is now."""
        middle = median(readings)
        return Measurement(
            metric=metric,
            value=middle,
            unit=unit,
            repeats=len(readings),
            spread=median(abs(reading - middle) for reading in readings),
            device=device_name(self.device),
            runtime=self.runtime,
            dtype=dtype_of(self.model),
            threads=torch.get_num_threads(),
            batch_size=batch_of(self.inputs),
        )


def subject(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    runtime: str = "eager",
    batch_size: int | None = None,
    device: torch.device | str | None = None,
) -> Subject:
    refuse_unknown_runtime(runtime)
    model = placed(model, device)
    home = device_of(model)
    inputs = map_tensors(lambda tensor: tensor.to(home), rebatch(example_inputs, batch_size))
    return Subject(model=model, inputs=inputs, runtime=runtime)


def refuse_unknown_runtime(runtime: str) -> None:
    if runtime not in RUNTIMES:
        near = get_close_matches(runtime, RUNTIMES, n=1)
        hint = f"; did you mean {near[0]!r}" if near else ""
        raise UsageError(f"unknown runtime {runtime!r}{hint}. Known: {', '.join(RUNTIMES)}")


@contextmanager
def steady(*subjects: Subject, threads: int | None = None) -> Iterator[None]:
    """Eval mode without gradients, pinned threads, denormals flushed, no garbage collection; all restored."""
    if threads is not None and threads < 1:
        raise UsageError(f"at least 1 thread is needed, got threads={threads}")
    before, collecting, flushing = torch.get_num_threads(), gc.isenabled(), _flushes_denormals()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)
    gc.disable()
    try:
        with untouched(*(one.model for one in subjects)), torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(flushing)
        if collecting:
            gc.enable()


def take_turns(
    subjects: Sequence[Subject], *, rounds: int, warmup: int, seconds: float, stopwatch: Stopwatch | None
) -> list[list[float]]:
    """Milliseconds per subject and round. Subjects take turns in a round; every other round goes backwards.

    Ends after `rounds` rounds, or once the readings exceed `seconds` in total and at least 5 rounds are made.
    Warm-ups end early too, at a quarter of `seconds`, after at least 3.
    """
    if rounds < 1 or warmup < 0 or not seconds > 0:
        raise UsageError(
            f"got repeats={rounds}, warmup={warmup}, seconds={seconds}: take at least 1, at least 0, above 0"
        )
    watch = stopwatch or _stopwatch(subjects[0].device)
    for one in subjects:
        forward(one.model, one.inputs)
    calls = [one.call for one in subjects]
    list(_rounds(calls, watch, most=warmup, fewest=_SETTLED, milliseconds=250 * seconds))
    made = list(_rounds(calls, watch, most=rounds, fewest=FEWEST, milliseconds=1000 * seconds))
    return [[times[turn] for times in made] for turn in range(len(subjects))]


def _rounds(
    calls: Sequence[Call], watch: Stopwatch, *, most: int, fewest: int, milliseconds: float
) -> Iterator[list[float]]:
    spent = 0.0
    for number in range(most):
        if number >= fewest and spent > milliseconds:
            return
        times = [0.0] * len(calls)
        order = range(len(calls)) if number % 2 == 0 else reversed(range(len(calls)))
        for turn in order:
            times[turn] = watch(calls[turn])
        spent += sum(times)
        yield times


def _stopwatch(device: torch.device) -> Stopwatch:
    return _cuda_stopwatch(device) if device.type == "cuda" else _wall_clock


def _wall_clock(call: Call) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _cuda_stopwatch(device: torch.device) -> Stopwatch:
    def watch(call: Call) -> float:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            call()
            end.record()
            torch.cuda.synchronize()
        return start.elapsed_time(end)

    return watch


def _flushes_denormals() -> bool:
    """Torch has a setter only, so a denormal is multiplied and looked at."""
    return (torch.full((), 1e-310, dtype=torch.float64, device="cpu") * 1.0).item() == 0.0


def device_name(device: torch.device) -> str:
    """For example "cpu (AMD EPYC)" or "cuda:0 (NVIDIA H200)": figures of two machines do not compare."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({_processor()})" if device.type == "cpu" else str(device)


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
