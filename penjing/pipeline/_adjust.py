"""The step that changes components before units are pruned, and the search for changes that pay."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import AdjustComponent, Budget, Limit, Plan, UsageError, clean
from penjing.measure import Timekeeper
from penjing.pipeline._files import read_json, write_json
from penjing.pipeline._job import Inputs, Job, write_plan, write_state
from penjing.pipeline._settle import folds
from penjing.pipeline._shrink import BATCH, before_adjusting, sizes_of
from penjing.recover import call, fit_adjusted, place
from penjing.search import Adjusting, Walk
from penjing.structure import merge_weights
from penjing.surgery import adjust, adjustments, fold_norms

STEP = "adjust"
FILE = "adjustments.json"
MOST = 24  # adjustments that one walk does
GLANCE = 96  # examples that each of many adjustments is first fitted and judged on
MOST_LOST = 1e3  # where widths alone do not meet the budget
SAVED = (0.5, 1.5)  # of what the best number of adjustments saves: what is tried beside it

LEAST = 0.05  # the share that a walk stops at where the budget does not tell
FIELDS = {"latency": "milliseconds", "macs": "macs", "params": "params"}

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A walk as JSON holds it: the network before it, every adjustment looked at, and those done, each with what it
    left.
    """

    record: Mapping[str, Any]

    @property
    def count(self) -> int:
        return len(self.record["done"])

    def edits(self, number: int) -> tuple[AdjustComponent, ...]:
        """The first `number`, in order."""
        found = Plan.from_json(self.record["plan"]).edits[:number]
        return tuple(edit for edit in found if isinstance(edit, AdjustComponent))

    def sentences(self, number: int) -> tuple[str, ...]:
        return tuple(one["told"] for one in self.record["done"][:number])

    def numbers(self, share: float, lost: float) -> tuple[int, ...]:
        """How many adjustments to try, for a budget of this `share` that widths alone meet at a loss of `lost` more.

        What is left to the widths after k adjustments costs less: taken as the square of the share that has to go (the
        first term that does not vanish for a trained network: LeCun, Denker & Solla, "Optimal brain damage", 1989). The
        number whose sum is least is tried, and those that save about half and half again as much.
        """
        metric, start = self.record["metric"], self.record["start"]
        whole = start[metric]
        sums = {}
        for number, one in enumerate(self.record["done"], 1):
            left = max(0.0, 1 - share * whole / max(one[metric], 1e-9))
            widths = min(max(0.0, lost), MOST_LOST) * (left / max(1 - share, 1e-9)) ** 2
            sums[number] = one["loss"] - start["loss"] + widths
        if not sums:
            return ()
        best = min(sums, key=lambda number: sums[number])
        gained = {number: whole - one[metric] for number, one in enumerate(self.record["done"], 1)}
        near = [min(gained, key=lambda n: abs(gained[n] - part * gained[best])) for part in SAVED]
        return tuple(dict.fromkeys((best, *near)))


def adjust_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Does what the recipe names, then the asked number of adjustments: those that the step choose found, or finds them
    now.
    """
    options, said = job.recipe.steps.adjust, list[str]()
    figures |= {"asked": len(options.do) + int(options.edits), "done": said}
    if not figures["asked"]:
        return
    model, done = before_adjusting(job)
    if options.do:
        model, own = named(job.inputs, model)
        done = own if done is None else done.then(own)
        said += options.do
    if options.edits:
        found = _found(job, model, out)
        number = min(int(options.edits), found.count)
        model, own = adjusted(job.inputs, model, found, number)
        done = own if done is None else done.then(own)
        said += found.sentences(number)
    assert done is not None
    write_plan(done, out, STEP)
    write_state(model, out, STEP)
    for text in adjust_notes(figures):
        job.note(STEP, text)


def _found(job: Job, model: nn.Module, out: Path) -> Found:
    """The walk of the step choose, or one from here."""
    known, options = job.run.path / FILE, job.recipe.steps.adjust
    if known.is_file():
        return Found(record=read_json(known))
    most = int(options.edits)
    found = look(job.inputs, model, seconds=options.seconds, most=most, progress=job.progress(STEP))
    write_json(out / FILE, dict(found.record))
    return found


def named(inputs: Inputs, model: nn.Module) -> tuple[nn.Module, Plan]:
    """`model` with the adjustments that the recipe names, proven and fitted, and the plan."""
    return _fitted(inputs, model, check_named(inputs, model))


def check_named(inputs: Inputs, model: nn.Module) -> tuple[AdjustComponent, ...]:
    """The adjustments of `model` that the recipe names.

    Raises `UsageError` for a sentence that is none of this network's, with those that are most like it.
    """
    known = {one.says: one.edit for one in adjustments(model, inputs.example(1)) if one.edit is not None}
    edits = []
    for says in inputs.recipe.steps.adjust.do:
        if says not in known:
            near = get_close_matches(says, known, n=3, cutoff=0.3)
            raise UsageError(
                f"steps.adjust.do: {clean(says)!r} is no adjustment of {inputs.recipe.model}. "
                f"Nearest: {'; '.join(near) or 'none'}. Fix: take a line of penjing inspect --adjustments"
            )
        edits.append(known[says])
    return tuple(edits)


def _fitted(inputs: Inputs, model: nn.Module, edits: tuple[AdjustComponent, ...]) -> tuple[nn.Module, Plan]:
    slim, plan = adjust(model, inputs.example(1), edits)
    merged, _ = merge_weights(model)
    own = replace(plan, edits=edits)
    fit_adjusted(merged, slim, own, _examples(inputs, int(inputs.recipe.steps.adjust.calibration))[0])
    return slim, plan


def adjust_notes(figures: Mapping[str, Any]) -> list[str]:
    """What was done, in sentences, and that fewer adjustments than asked pay."""
    asked, done = figures["asked"], figures["done"]
    few = f"{len(done)} of {asked} adjustments were done: no other saves anything"
    return [*done, *([few] if len(done) < asked else [])]


def look(
    inputs: Inputs,
    model: nn.Module,
    *,
    seconds: float | None,
    most: int = MOST,
    progress: Progress | None = None,
) -> Found:
    """The walk over the adjustments of `model` that save what the recipe's budget limits."""
    options = inputs.recipe.steps.adjust
    merged, _ = merge_weights(model)
    fitted, judged = _examples(inputs, int(options.calibration))
    few = _examples(inputs, min(GLANCE, int(options.calibration)), GLANCE // 4)
    limit = _limit(inputs)
    metric = {"latency": "latency", "size": "params", "params": "params"}.get(limit.metric, "macs")
    share = limit.number if limit.relative else LEAST
    about: dict[str, Any] = {"model": merged.eval(), "example_inputs": inputs.example(1), "batches": fitted}
    about |= {
        "evaluate": _loss(inputs, judged),
        "glance": (few[0], _loss(inputs, few[1])),
        "metric": metric,
        "kinds": options.kinds,
        "progress": progress,
    }
    about |= {"seconds": float("inf") if seconds is None else seconds}
    if metric != "latency":  # decided by counts alone, so that equal runs decide alike
        return _told(Adjusting(keeper=None, **about).walk(share, most), FIELDS[metric])
    form = (lambda m: fold_norms(m, inputs.example(1), proven=False)[0]) if folds(inputs.recipe) else None
    with Timekeeper(
        reference=merged,
        example_inputs=inputs.example(1),
        runtime=inputs.recipe.runtime,
        batch_size=inputs.recipe.steps.measure.batch_sizes[0],
        form=form,
    ) as keeper:
        return _told(Adjusting(keeper=keeper, **about).walk(share, most), FIELDS[metric])


def adjusted(inputs: Inputs, model: nn.Module, found: Found, number: int) -> tuple[nn.Module, Plan]:
    """`model` with the first `number` adjustments, proven, then fitted; and the plan, which says what each did."""
    slim, plan = _fitted(inputs, model, found.edits(number))
    before = plan.policies[: len(plan.policies) - number]
    return slim, replace(plan, policies=(*before, *found.sentences(number)))


def share_of(inputs: Inputs, model: nn.Module, found: Found) -> float:
    """The share of `model` that the budget leaves of what it limits."""
    limit, whole = _limit(inputs), found.record["start"][found.record["metric"]]
    if limit.relative:
        return limit.number
    whole = sizes_of(inputs, model)["size"] if limit.metric == "size" else whole
    return limit.absolute(whole) / whole if limit.metric != "memory" else 1.0


def _limit(inputs: Inputs) -> Limit:
    """What is to be saved first: time, where that is limited, else what an adjustment changes most."""
    limits = {limit.metric: limit for limit in Budget.parse(inputs.recipe.budget).limits}
    return next(limits[m] for m in ("latency", "macs", "params", "size", "memory") if m in limits)


def _examples(inputs: Inputs, number: int, size: int = BATCH) -> tuple[list[Any], list[Any]]:
    """Batches that new components are fitted on (what the network is given), and as many others that judge them."""
    batches = inputs.data.batches("train", size, limit=2 * number)
    placed = [place(batch, torch.device(inputs.recipe.device)) for batch in batches]
    half = max(1, len(placed) // 2)
    return [inputs.task().inputs(batch) for batch in placed[:half]], placed[half:] or placed


def _loss(inputs: Inputs, batches: Sequence[Any]) -> Callable[[nn.Module], float]:
    task = inputs.task()

    @torch.no_grad()
    def loss(model: nn.Module) -> float:
        model.eval()
        losses = [float(task.loss(call(model, task.inputs(batch)), batch)) for batch in batches]
        return sum(losses) / len(losses)

    return loss


def _told(walk: Walk, metric: str) -> Found:
    """The walk as JSON gives it back."""
    sentences = walk.sentences(len(walk.done))
    done = [{"told": told, **after.to_dict()} for told, (_, after) in zip(sentences, walk.done, strict=True)]
    plan = Plan(edits=tuple(option.edit for option, _ in walk.done), fingerprint="")
    record = {"metric": metric, "start": walk.start.to_dict(), "plan": plan.to_json(), "done": done}
    record["late"] = walk.late
    record["options"] = [option.to_dict() for option in walk.options]
    return Found(record=json.loads(json.dumps({"schema_version": 1, **record})))
