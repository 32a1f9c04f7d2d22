"""The speed-up elsewhere: at other batch sizes, on other threads, in other runtimes, on other devices."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from penjing.core import Measurement, PenjingError, Place, clean
from penjing.measure import Speedup, speedup
from penjing.pipeline._job import Job

BATCH_SIZES = (1, 8, 32)
RUNTIMES = {
    "eager": "torch",
    "onnx": "onnxruntime",
    "openvino": "openvino",
}  # and what must be installed for it
ROUNDS, WARM_UP, SECONDS = 12, 3, 1.5  # of both networks together


def scalability(job: Job) -> dict[str, Any]:
    """A row per place: how many times faster the slim network is there than the reference, both timed in turns.

    {} where no place is asked for. A place where they cannot run has a row that says why.
    """
    rows = []
    asked, networks = tuple(dict.fromkeys(places(job))), (job.full(job.reference), job.final())
    for number, place in enumerate(asked):
        job.progress("measure")(str(place), number, len(asked), {})
        rows.append(_about(place) | _timed(job, networks, place))
    return {"scalability": rows} if rows else {}


def places(job: Job) -> Iterator[Place]:
    """Whole descriptions: that of the recipe, those that differ from it in one thing, those that were asked for."""
    recipe, options = job.recipe, job.recipe.steps.measure
    home = Place(
        runtime=recipe.runtime,
        device=recipe.device,
        batch_size=options.batch_sizes[0],
        threads=torch.get_num_threads(),
    )
    if options.elsewhere:
        yield home
        for size in sorted({*BATCH_SIZES, *options.batch_sizes}):
            yield replace(home, batch_size=size)
        for threads in sorted({1, os.cpu_count() or 1}) if recipe.device == "cpu" else ():
            yield replace(home, threads=threads)
        for runtime, package in RUNTIMES.items():
            if importlib.util.find_spec(package) is not None:
                yield _completed(Place(runtime=runtime), home)
    for text in recipe.also:
        yield _completed(Place.parse(text), home)


def _completed(place: Place, home: Place) -> Place:
    """`place` with what it leaves open as at home; runtimes of the CPU are there, other devices are eager's."""
    on_cpu = place.runtime in ("onnx", "openvino")
    elsewhere = place.device not in (None, "cpu") and home.runtime in ("onnx", "openvino")
    return Place(
        runtime=place.runtime or ("eager" if elsewhere else home.runtime),
        device=place.device or ("cpu" if on_cpu else home.device),
        batch_size=place.batch_size or home.batch_size,
        threads=place.threads or home.threads,
    )


def _about(place: Place) -> dict[str, Any]:
    return {"place": str(place), **asdict(place)}


def _timed(job: Job, networks: tuple[nn.Module, nn.Module], place: Place) -> dict[str, Any]:
    """Both networks' times and the speed-up, or `why` there are none."""
    try:
        return faster(
            speedup(
                *networks,
                job.inputs.example(1),
                batch_size=place.batch_size,
                rounds=ROUNDS,
                warmup=WARM_UP,
                seconds=SECONDS,
                runtime=place.runtime or "eager",
                threads=place.threads,
                device=place.device,
            )
        )
    except (PenjingError, RuntimeError) as error:  # torch's own: no memory, no kernel
        return {"why": clean(str(error).partition("\n")[0])}


def faster(timed: Speedup) -> dict[str, Any]:
    """How many times faster b is than a, and both times."""
    sides = {"a_ms": milliseconds(timed.a), "b_ms": milliseconds(timed.b)}
    return {"ratio": timed.ratio, "low": timed.low, "high": timed.high, **sides}


def milliseconds(latency: Measurement) -> dict[str, Any]:
    left_out = ("metric", "value", "unit", "spread")
    about = {key: value for key, value in asdict(latency).items() if key not in left_out}
    return {"median": latency.value, "mad": latency.spread, **about}
