"""Closed-form reconstruction as a part of a step, and what is told of it."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from penjing.core import Plan, PlanError
from penjing.pipeline._job import Job
from penjing.recover import Rebuilt, rebuild


def rebuild_to(
    job: Job, step: str, model: nn.Module, wanted: nn.Module, plan: Plan, name: str, figures: dict[str, Any]
) -> None:
    """`model`, which `plan` cut from `wanted`, refitted in place as the recipe's recover step says.

    `wanted` is the network of the step `name`. A resumed step does it again: its figures are the same.
    """
    options, own = job.recipe.steps.recover, "recover" if step == "tune" else step  # as without tuning
    seed = job.run.record(own)["seed"]
    if options.reconstruct is False:
        return
    how = {"when": options.reconstruct, "examples": options.reconstruct_examples, "seed": seed}
    job.progress(step)("reconstruct", 0, 1, {})
    try:
        done = rebuild(model, wanted, plan, job.inputs.task(), job.inputs.data, **how)
    except PlanError as error:
        if options.reconstruct is True:
            raise
        job.note(step, f"no reconstruction: {error}")
        figures["reconstruct"] = {"kept": False, "cause": str(error)}
        return
    assert done is not None
    figures["reconstruct"] = _told(done) | {"towards": name}
    for note in done.found.notes if done.kept else ("reconstruction did not help and was taken back",):
        job.note(step, note)


def finite(row: Mapping[str, float]) -> dict[str, float | None]:
    """A row of a history without its time, as JSON can hold it."""
    return {key: value if math.isfinite(value) else None for key, value in row.items() if key != "seconds"}


def _told(done: Rebuilt) -> dict[str, Any]:
    found = done.found
    layers = [
        {"name": f.name, "before": f.before, "after": f.after, "ridge": f.ridge, "cause": f.cause}
        for f in found.layers
    ]
    sides = {"before": finite(done.before), "after": finite(done.after)}
    about = {"examples": found.examples, "memory": found.memory, "notes": list(found.notes)}
    return {"kept": done.kept, **sides, **about, "layers": layers}
