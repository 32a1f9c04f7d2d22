"""The speed-up elsewhere: at other batch sizes, on other threads, in other runtimes, on other devices."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from penjing.core import PenjingError, Place, Recipe, clean, physical_memory
from penjing.measure import latency, peak_memory, speedup
from penjing.pipeline._job import Job
from penjing.pipeline._times import faster

BATCH_SIZES = (1, 8, 32)
TRIED = 256  # examples: larger batches are timed where they fit
LONGEST = 10  # seconds of one forward
# What must be installed for the runtimes that are tried without being asked for; "compile" takes minutes.
PACKAGES = {"eager": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
ROUNDS, WARM_UP, SECONDS = 12, 3, 1.5  # of both networks together


def scalability(job: Job) -> dict[str, Any]:
    """A row per place: how many times faster the slim network is there than the reference, both timed in turns.

    {} where no place is asked for. A place where they cannot run has a row that says why.
    """
    rows = []
    asked, networks = places(job.recipe), (job.full(job.reference), job.final())
    for number, place in enumerate(asked):
        job.progress("measure")(str(place), number, len(asked), {})
        rows.append(_about(place) | _timed(job, networks, place))
    return {"scalability": rows} if rows else {}


def places(recipe: Recipe) -> tuple[Place, ...]:
    """Whole descriptions: that of the recipe, those that differ from it in one thing, those that were asked for."""
    home = Place(
        runtime=recipe.runtime,
        device=recipe.device,
        batch_size=recipe.steps.measure.batch_sizes[0],
        threads=torch.get_num_threads(),
    )
    others = _near(home, recipe) if recipe.steps.measure.elsewhere else ()
    asked = (Place.parse(text).completed(home) for text in recipe.also)
    return tuple(dict.fromkeys((*others, *asked)))


def _near(home: Place, recipe: Recipe) -> Iterator[Place]:
    yield home
    for size in sorted({*BATCH_SIZES, *recipe.steps.measure.batch_sizes}):
        yield replace(home, batch_size=size)
    for threads in sorted({1, os.cpu_count() or 1}) if recipe.device == "cpu" else ():
        yield replace(home, threads=threads)
    for runtime, package in PACKAGES.items():
        if importlib.util.find_spec(package) is not None:
            yield Place(runtime=runtime).completed(home)


def _about(place: Place) -> dict[str, Any]:
    return {"place": str(place), **asdict(place)}


def _timed(job: Job, networks: tuple[nn.Module, nn.Module], place: Place) -> dict[str, Any]:
    """Both networks' times and the speed-up, or `why` there are none."""
    why = _too_much(job, networks[0], place)
    if why:
        return {"why": why}
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


def _too_much(job: Job, reference: nn.Module, place: Place) -> str:
    """Why a large batch is not timed: what one small batch takes, times as many examples."""
    size = place.batch_size or 1
    if size <= TRIED:
        return ""
    few = job.recipe.steps.measure.batch_sizes[0]
    more, example = size / few, job.inputs.example(1)
    held = more * peak_memory(reference, example, batch_size=few).value
    if place.device == "cpu" and held > physical_memory() / 2:
        return (
            f"{size} examples would hold about {held / 1e9:.3g} GB, more than half of this machine's memory"
        )
    seconds = more * latency(reference, example, batch_size=few, repeats=3, warmup=1).value / 1000
    return f"one forward of {size} examples would take about {seconds:.0f} s" if seconds > LONGEST else ""
