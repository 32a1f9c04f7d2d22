"""Readings taken in turns."""

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median

import torch
from torch import nn

from penjing.core import Measurement, UsageError
from penjing.measure._state import dtype_of
from penjing.runtimes import Prepared

Call = Callable[[], object]
Stopwatch = Callable[[Call], float]  # runs the call once; the milliseconds it took

FEWEST = 5
_SETTLED = 3


def measurement(
    metric: str, unit: str, readings: Sequence[float], model: nn.Module, one: Prepared
) -> Measurement:
    """Median and median absolute deviation of the readings, with the environment they were taken in."""
    middle = median(readings)
    return Measurement(
        metric=metric,
        value=middle,
        unit=unit,
        repeats=len(readings),
        spread=median(abs(reading - middle) for reading in readings),
        device=device_name(one.device),
        runtime=one.runtime,
        dtype=dtype_of(model),
        threads=one.threads,
        batch_size=one.batch_size,
    )


def take_turns(
    prepared: Sequence[Prepared], *, rounds: int, warmup: int, seconds: float, stopwatch: Stopwatch | None
) -> list[list[float]]:
    """Milliseconds per network and round. Networks take turns in a round; every other round goes backwards.

    Ends after `rounds` rounds, or once the readings exceed `seconds` in total and at least 5 rounds are made.
    Warm-ups end early too, at a quarter of `seconds`, after at least 3.
    """
    watch = stopwatch or stopwatch_of(prepared[0].device)
    calls = [one.run for one in prepared]
    list(_rounds(calls, watch, most=warmup, fewest=_SETTLED, milliseconds=250 * seconds))
    made = list(_rounds(calls, watch, most=rounds, fewest=FEWEST, milliseconds=1000 * seconds))
    return [[times[turn] for times in made] for turn in range(len(prepared))]


def check_turns(rounds: int, warmup: int, seconds: float) -> None:
    if rounds < 1 or warmup < 0 or not seconds > 0:
        raise UsageError(
            f"got repeats={rounds}, warmup={warmup}, seconds={seconds}: take at least 1, at least 0, above 0"
        )


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


def stopwatch_of(device: torch.device) -> Stopwatch:
    return _cuda_stopwatch(device) if device.type == "cuda" else _wall_clock


def undisturbed(device: torch.device, threads: int) -> Stopwatch:
    """The stopwatch that others on the machine disturb least. On one thread of the CPU it reads that thread's CPU time:
    a forward never waits, so on an idle machine this is the time that passes, and on a busy one the turns of other
    programs are left out (what they do to shared caches is not).
    """
    return _own_clock if device.type == "cpu" and threads == 1 else stopwatch_of(device)


def _wall_clock(call: Call) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6


def _own_clock(call: Call) -> float:
    start = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - start) / 1e6


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
