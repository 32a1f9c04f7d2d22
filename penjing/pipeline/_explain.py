"""The step that explains: what was removed and why, which answers changed, and whether both networks look at the
same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from penjing.core import DropBlock, Pictures, Plan, RemoveUnits, Sounds, Texts, UsageError
from penjing.explain import (
    attributions,
    cka_by_depth,
    heat_uri,
    picture_uri,
    sound_uri,
    spearman,
    spectrogram_uri,
    top_overlap,
)
from penjing.measure import macs_by_module
from penjing.pipeline._board import show_on_board
from penjing.pipeline._figures import SPLIT, same
from penjing.pipeline._files import read_json, write_json
from penjing.pipeline._job import Job
from penjing.pipeline._settle import seeds_of
from penjing.pipeline._shrink import SCORES
from penjing.recover import evaluate, place
from penjing.structure import tensors_of, trace
from penjing.tasks import headline, shown, tokens_shown

STEP, FILE = "explain", "explain.json"
BATCH = 16
PATCHES, LONG = 16, 48  # a side of pictures, and along the time of sounds
ALIKE = 256  # examples whose inner states are compared
CAUSES = 40
KINDS = ("negative", "positive", "other")


def explain_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes explain.json: groups with their curves, what is frozen, flips as people see them, agreement of
    attributions with its noise floor, and how alike inner states are by depth.
    """
    pair = {"reference": job.full(job.reference).eval(), "slim": job.final().eval()}
    found: dict[str, Any] = {
        "schema_version": 1,
        "removed": _removed(job),
        "frozen": _frozen(job, pair["reference"]),
    }
    answers = {
        name: evaluate(model, job.inputs.task(), job.inputs.data, SPLIT, logits=True)
        for name, model in pair.items()
    }
    flipped = _flipped(answers)
    chosen = flipped[: job.recipe.steps.explain.shown]
    looks, why = _looks(job, pair, answers, [place for place, _ in chosen])
    found["attribution"] = _agreement(job, answers, looks) if looks else {"why": why}
    found["flips"] = {
        "of": len(flipped),
        "shown": [_shown(job, answers, at, kind, looks) for at, kind in chosen],
    }
    found["cka"] = _alike(job, pair)
    found["layers"] = _layers(job, pair)
    write_json(out / FILE, found)
    show_on_board(job, pair["slim"], answers, flipped)
    figures |= {"flips_shown": len(chosen), "attribution": found["attribution"]}


def _removed(job: Job) -> dict[str, Any]:
    """By group what is left of it and what its curve said; blocks dropped and components changed, in sentences."""
    plan, scores = job.final_plan(), job.run.path / SCORES
    told: dict[str, Any] = read_json(scores) if scores.exists() else {"groups": []}
    gone: dict[str, int] = {}
    for edit in plan.edits:
        if isinstance(edit, RemoveUnits):
            gone[edit.group] = gone.get(edit.group, 0) + len(edit.units)
    groups = [{**group, "removed": gone.get(group["name"], 0)} for group in told["groups"]]
    known = {group["name"] for group in groups}
    groups += [
        {"name": name, "removed": count, "curve": []} for name, count in gone.items() if name not in known
    ]
    return {**told, "groups": groups, "changes": _changes(job, plan)}


def _changes(job: Job, plan: Plan) -> list[str]:
    """Blocks that were dropped, and what the step adjust did."""
    dropped = [f"{edit.module}: dropped" for edit in plan.edits if isinstance(edit, DropBlock)]
    steps = {record["name"]: record.get("figures", {}) for record in job.run.ledger["steps"]}
    return [*dropped, *steps.get("adjust", {}).get("done", ())]


def _frozen(job: Job, model: nn.Module) -> list[dict[str, Any]]:
    """Causes that keep dims from shrinking, each with the modules that it holds in."""
    causes: dict[str, dict[str, Any]] = {}
    for item in trace(model, job.inputs.example(1)).frozen:
        cause = item.cause.removeprefix(f"{item.module}: ")
        entry = causes.setdefault(cause, {"cause": cause, "count": 0, "modules": []})
        entry["count"] += item.count
        if item.module not in entry["modules"]:
            entry["modules"].append(item.module)
    return sorted(causes.values(), key=lambda entry: -entry["count"])[:CAUSES]


def _flipped(answers: Mapping[str, Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Places in the certification split whose answers changed, to the worse first, and of which kind each is."""
    left, right = (answers[name]["predictions"] for name in ("reference", "slim"))
    truth = answers["reference"]["targets"]
    changed, was, now = (~same(left, right), same(left, truth), same(right, truth))
    kind = [("negative" if a else "positive" if b else "other") for a, b in zip(was, now, strict=True)]
    found = [(place, kind[place]) for place in torch.where(changed)[0].tolist()]
    return sorted(found, key=lambda one: KINDS.index(one[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Attributions of both networks (and of one from another seed), [n, positions] each, by place in the split."""

    places: tuple[int, ...]
    reference: Sequence[Tensor]
    slim: Sequence[Tensor]
    other: Sequence[Tensor] | None


def _looks(
    job: Job, pair: Mapping[str, nn.Module], answers: Mapping[str, Any], flipped: Sequence[int]
) -> tuple[Looks | None, str]:
    """What both look at, in the first examples and those that flipped; None and why where that cannot be told."""
    if headline(job.inputs.task())[0] != "accuracy" or not isinstance(
        answers["reference"]["targets"], Tensor
    ):
        return None, "attributions are of one answer an example, and this task gives several"
    first = range(min(job.recipe.steps.explain.examples, job.inputs.data.n(SPLIT)))
    places = tuple(dict.fromkeys((*first, *flipped)))
    networks = dict(pair)
    for step in seeds_of(job.recipe)[:1]:
        networks["other"] = job.slim(step, "prune").eval()
    try:
        told = {
            name: _attributed(job, model, places, answers["reference"]["predictions"], name)
            for name, model in networks.items()
        }
    except UsageError as error:
        return None, str(error)
    return Looks(places=places, reference=told["reference"], slim=told["slim"], other=told.get("other")), ""


def _attributed(
    job: Job, model: nn.Module, places: Sequence[int], answered: Tensor, name: str
) -> list[Tensor]:
    """What speaks for the whole network's answer, example by example."""
    data: Any = job.inputs.data
    own, task, found = data.certification.indices, job.inputs.task(), list[Tensor]()
    size = (
        1 if isinstance(job.inputs.reads, Sounds) else BATCH
    )  # a clip alone, without silence to the longest
    for start in range(0, len(places), size):
        job.progress(STEP)(f"attributions, {name}", start, len(places), {})
        at = places[start : start + size]
        batch = data.contents.batch([own[i] for i in at], None, 0, 0)
        inputs = place(task.inputs(batch), torch.device(job.recipe.device))
        told = attributions(model, inputs, answered[list(at)].to(job.recipe.device), task.logits).cpu()
        values = next(one for one in tensors_of(inputs))
        found += [*_in_patches(told, values.cpu())]
    return found


def _in_patches(told: Tensor, values: Tensor) -> Tensor:
    """Of pictures and sounds the means of patches, [n, h, w], sounds with low notes first and time from left to right:
    single pixels and samples are mostly noise. Token by token as they are.
    """
    if not values.is_floating_point():
        return told
    planes = told.view(len(told), *values.shape[-2:]) if values.dim() > 2 else told[:, None]
    planes = planes.mT if values.dim() == 3 else planes
    high, wide = planes.shape[-2:]
    most = PATCHES if values.dim() == 4 else LONG
    return adaptive_avg_pool2d(planes[:, None], (min(high, PATCHES), min(wide, most)))[:, 0]


def _agreement(job: Job, answers: Mapping[str, Any], looks: Looks) -> dict[str, Any]:
    """Mean rank correlation and overlap of the top tenth, over all, by whether the answer changed, and the noise floor:
    the same between two recoveries that differ in their seed.
    """
    changed = ~same(answers["reference"]["predictions"], answers["slim"]["predictions"])
    flipped = changed[list(looks.places)]
    pairs = _scores(looks.reference, looks.slim)
    found: dict[str, Any] = {"n": len(looks.places), "n_flipped": int(flipped.sum())}
    for name, values in pairs.items():
        found[name] = {
            "all": _mean(values),
            "same answer": _mean(values[~flipped]),
            "flipped": _mean(values[flipped]),
            "floor": None if looks.other is None else _mean(_scores(looks.slim, looks.other)[name]),
        }
    if looks.other is None:
        found["note"] = "no noise floor: a run with --seeds 2 or more tells how far two recoveries agree"
    return found


def _scores(left: Sequence[Tensor], right: Sequence[Tensor]) -> dict[str, Tensor]:
    """Per example, [n]."""
    both = [*zip(left, right, strict=True)]
    return {
        "spearman": torch.cat([spearman(a.reshape(1, -1), b.reshape(1, -1)) for a, b in both]),
        "top_overlap": torch.cat([top_overlap(a.reshape(1, -1), b.reshape(1, -1)) for a, b in both]),
    }


def _mean(values: Tensor) -> float | None:
    told = values[~values.isnan()]
    return float(told.mean()) if len(told) else None


def _shown(job: Job, answers: Mapping[str, Any], at: int, kind: str, looks: Looks | None) -> dict[str, Any]:
    """A changed answer as people see it."""
    data: Any = job.inputs.data
    index, labels = data.certification.indices[at], data.labels
    truth = answers["reference"]["targets"][at]
    told = [answers[name]["predictions"][at] for name in ("reference", "slim")]
    names = [_named(job, answer, labels) for answer in (truth, *told)]
    seen = {
        "name": data.names[index],
        "kind": kind,
        **dict(zip(("label", "before", "after"), names, strict=True)),
    }
    place = None if looks is None or at not in looks.places else looks.places.index(at)
    heat = None if looks is None or place is None else (looks.reference[place], looks.slim[place])
    return {**seen, **_media(job, index, heat)}


def _named(job: Job, answer: Any, labels: Sequence[str]) -> str:
    if isinstance(answer, Tensor):
        return labels[int(answer)]
    return answer if isinstance(answer, str) else " ".join(labels[int(tag)] for tag in answer)


def _media(job: Job, index: int, heat: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    data: Any = job.inputs.data
    example, reads = shown(data, index), job.inputs.reads
    if isinstance(reads, Pictures) and example.picture is not None:
        return {"picture": picture_uri(example.picture), **_overlays(heat)}
    if isinstance(reads, Texts):
        return {"text": example.text, **_tokens(data, index, heat)}
    assert isinstance(reads, Sounds)
    assert example.samples is not None
    upright = None if heat is None else (heat[0].flip(0), heat[1].flip(0))  # low notes at the bottom
    drawn = {"spectrogram": spectrogram_uri(example.samples, example.rate), **_overlays(upright)}
    return {"sound": sound_uri(example.samples, example.rate), **drawn}


def _overlays(heat: tuple[Tensor, Tensor] | None) -> dict[str, str]:
    """What both networks looked at, to be laid over the example."""
    return dict(zip(("heat_before", "heat_after"), map(heat_uri, heat or ()), strict=False))


def _tokens(data: Any, index: int, heat: tuple[Tensor, Tensor] | None) -> dict[str, Any]:
    """The tokens and how strongly each speaks for the first answer, in shares of the strongest."""
    if heat is None:
        return {}
    tokens = tokens_shown(data, index)
    weights = [(one[: len(tokens)] / (one.abs().max() or 1)).tolist() for one in heat]
    return {"tokens": tokens, **dict(zip(("weights_before", "weights_after"), weights, strict=True))}


def _layers(job: Job, pair: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """Layers with weights: outputs and MACs before and after, None where the layer is gone."""
    example = job.inputs.example(1)
    macs = {name: macs_by_module(model, example) for name, model in pair.items()}
    slim = dict(pair["slim"].named_modules())
    found = []
    for path, module in pair["reference"].named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1 and macs["reference"].get(path):
            after = getattr(slim.get(path), "weight", None)
            left = len(after) if isinstance(after, Tensor) and after.dim() > 1 else None
            row = {"path": path, "kind": type(module).__name__, "before": len(weight), "after": left}
            found.append(
                row | {"macs_before": macs["reference"][path], "macs_after": macs["slim"].get(path, 0)}
            )
    return found


def _alike(job: Job, pair: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    task, device = job.inputs.task(), torch.device(job.recipe.device)
    batches = job.inputs.data.batches("selection", 64, limit=ALIKE)
    return cka_by_depth(pair["reference"], pair["slim"], [place(task.inputs(one), device) for one in batches])
