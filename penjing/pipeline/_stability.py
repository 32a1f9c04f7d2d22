"""The step that disturbs: how far answers can be trusted, and whether the smaller network bears less than the whole."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from penjing.certify import calibration, flips, temperature
from penjing.core import DataError, UsageError
from penjing.pipeline._figures import SPLIT, same
from penjing.pipeline._files import write_json
from penjing.pipeline._handed import handed
from penjing.pipeline._heldout import everything, other_classes
from penjing.pipeline._job import Inputs, Job
from penjing.recover import evaluate
from penjing.tasks import STRENGTHS, Disturbed, LabelledData, disturbances, headline, task_for

STEP, FILE = "stability", "stability.json"
Z95 = 1.959964


def stability_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes stability.json: flips, confidence before and after temperature scaling, disturbed examples, other data."""
    pair = {"reference": job.full(job.reference).eval(), "slim": _file(job)}
    found: dict[str, Any] = {"schema_version": 1, "metric": headline(job.inputs.task())[0]}
    answers = {
        name: evaluate(model, job.inputs.task(), job.inputs.data, SPLIT, logits=True)
        for name, model in pair.items()
    }
    found["flips"] = _flips(answers)
    found["calibration"] = _calibration(job, pair, answers)
    found["disturbed"] = [*_disturbed(job, pair)]
    if job.recipe.steps.stability.data:
        found["elsewhere"] = _elsewhere(job, pair, job.recipe.steps.stability.data)
    write_json(out / FILE, found)
    worst = min(found["disturbed"], key=lambda row: row["gap"], default=None)
    figures |= {"flips": found["flips"]} | ({"worst": worst} if worst else {})


def _file(job: Job) -> nn.Module:
    """What was handed over, in its own runtime."""
    found = handed(job.run.path, job.recipe.runtime, trust=job.inputs.trust, original=job.recipe.model).model
    return found.to(job.recipe.device)


def _flips(answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    left, right = (answers[name]["predictions"] for name in ("reference", "slim"))
    truth = answers["reference"]["targets"]
    return flips(~same(left, right).numpy(), same(left, truth).numpy(), same(right, truth).numpy()).to_dict()


def _calibration(
    job: Job, pair: Mapping[str, nn.Module], answers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """By network before and after scaling by the temperature that suits the selection split; None for sequences."""
    if "logits" not in answers["reference"]:
        return None
    found = {}
    for name, model in pair.items():
        chosen = evaluate(model, job.inputs.task(), job.inputs.data, "selection", logits=True)
        scale = temperature(chosen["logits"], chosen["targets"])
        judged: tuple[Tensor, Tensor] = answers[name]["logits"], answers[name]["targets"]
        before, after = (calibration(*judged, temperature=t).to_dict() for t in (1.0, scale))
        found[name] = {"before": before, "after": after, "temperature": scale}
    return found


def _disturbed(job: Job, pair: Mapping[str, nn.Module]) -> Iterator[dict[str, Any]]:
    """A row for the examples as they are, then one for every kind and strength of disturbance."""
    data: Any = job.inputs.data
    count, task = min(job.recipe.steps.stability.examples, data.n(SPLIT)), job.inputs.task()
    if not count:
        return
    kinds = [("as they are", 0), *((kind, strength) for kind in disturbances(data) for strength in STRENGTHS)]
    for number, (kind, strength) in enumerate(kinds):
        job.progress(STEP)(kind, number, len(kinds), {})
        given = Disturbed(data=data, kind=kind, strength=strength, count=count, seed=job.recipe.seed)
        answers = {name: evaluate(model, task, given, SPLIT) for name, model in pair.items()}
        yield {"kind": kind, "strength": strength, "n": count, **_compared(task, answers)}


def _compared(task: Any, answers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Both scores, by how much the slim network is ahead (gap, in the metric's units), and for accuracies the 95%
    interval of that (paired, normal approximation).
    """
    name, larger = headline(task)
    left, right = (float(answers[side][name]) for side in ("reference", "slim"))
    gap = (right - left) * (1 if larger else -1)
    row: dict[str, Any] = {"reference": left, "slim": right, "gap": gap, "low": None, "high": None}
    truth = answers["reference"]["targets"]
    if name == "accuracy" and isinstance(truth, Tensor):
        ours, theirs = (
            same(answers[side]["predictions"], truth).double().numpy() for side in ("slim", "reference")
        )
        half = Z95 * float(np.std(ours - theirs)) / math.sqrt(len(ours))
        row |= {"low": gap - half, "high": gap + half}
    return row


def check_other_data(inputs: Inputs) -> None:
    """Raises UsageError for other data that could not be judged on, if any is asked for."""
    if inputs.recipe.steps.stability.data:
        other_data(inputs, inputs.recipe.steps.stability.data)


def other_data(inputs: Inputs, source: str) -> LabelledData:
    """All examples of `source`, which have the run's classes; raises UsageError for others."""
    alphabet = inputs.data.labels if inputs.recipe.task == "speech-recognition" else None
    try:
        data = everything(inputs.recipe.task, source, inputs.reads, alphabet)
    except (DataError, UsageError) as error:
        raise UsageError(f"steps.stability.data: {error}") from error
    if data.labels != inputs.data.labels:
        raise UsageError(f"steps.stability.data: {source} {other_classes(data.labels, inputs.data.labels)}")
    return data


def _elsewhere(job: Job, pair: Mapping[str, nn.Module], source: str) -> dict[str, Any]:
    """Both networks on other examples, all of them."""
    inputs, data = job.inputs, other_data(job.inputs, source)
    task = task_for(job.recipe.task, data, beam=job.recipe.beam, clock=inputs.clock)
    answers = {name: evaluate(model, task, data, SPLIT) for name, model in pair.items()}
    return {"data": data.name, "n": data.n(SPLIT), **_compared(task, answers)}
