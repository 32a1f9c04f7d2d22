"""The steps that change structure: trim whole blocks, then prune units to the budget, at once or in rounds."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import Budget, BudgetError, Plan, PruneGroup, Recipe, UsageError
from penjing.criteria import CRITERIA, Score, loss_units, remarks_in
from penjing.measure import count_macs, count_params, state_bytes
from penjing.pipeline._files import write_json
from penjing.pipeline._job import Inputs, Job, event_log, write_plan, write_state
from penjing.pipeline._rebuilt import rebuild_to
from penjing.pipeline._rounds import ONCE, Round
from penjing.pipeline._settle import folds
from penjing.recover import call, place
from penjing.search import DEFAULT_GRANULARITY, Levers, bound_in, curve, matches, nearest_told, prune, trim
from penjing.structure import fingerprint

BATCH = 64
CURVE = 17  # points that are kept of a group's curve
SCORES = "sensitivity.json"
MEASURED = ("latency", "memory")  # on the networks themselves, at a batch size


def check_budget(recipe: Recipe) -> None:
    """Raises `UsageError` for a search whose criterion does not say what a budget is spent on."""
    options = recipe.steps.prune
    if options.scope == "loss" and options.criterion in CRITERIA and not loss_units(options.criterion):
        able = ", ".join(name for name in CRITERIA if loss_units(name))
        raise UsageError(
            f"steps.prune: scope loss compares losses, and criterion {options.criterion} is in other units. "
            f"Fix: scope: auto, or one of the criteria {able}."
        )


def trim_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Drops the asked number of residual blocks, each time the one that raises the calibration loss least, and makes up
    for what they gave.
    """
    options, whole = job.recipe.steps.trim, job.full(job.reference)
    if not options.blocks:
        figures |= {"asked": 0, "dropped": [], "stopped": "none was to go"}
        return
    slim, plan, report = trim(
        whole,
        job.inputs.example(),
        evaluate=calibration_loss(job.inputs, int(options.calibration)),
        drop=int(options.blocks),
        progress=job.progress("trim"),
    )
    if plan.dropped:
        rebuild_to(job, "trim", slim, whole, plan, job.reference, figures)
    write_plan(plan, out, "trim")
    write_state(slim, out, "trim")
    figures |= {"asked": options.blocks, "dropped": list(plan.dropped)}
    figures |= {"candidates": list(report.candidates), "stopped": report.stopped}
    figures["losses"] = [report.start_loss, *(dropped.loss for dropped in report.dropped)]
    for text in trim_notes(figures):
        job.note("trim", text)


def trim_notes(figures: Mapping[str, Any]) -> list[str]:
    """What the user should know of a trim step with these figures: that fewer blocks went than were asked."""
    asked, dropped, candidates = figures["asked"], len(figures["dropped"]), len(figures["candidates"])
    if dropped >= asked:
        return []
    return [
        f"trim dropped {dropped} of {asked} blocks: {candidates or 'no'} residual blocks of this network "
        f"can go ({figures['stopped']})"
    ]


def prune_step(job: Job, round: Round, out: Path, figures: dict[str, Any]) -> None:
    """Removes units until this round's share of the way to the recipe's budget, relative to the reference, is met."""
    if round.of > 1 and round.before is None:
        job.note(
            round.prune, f"the budget is met in {round.of} rounds (steps.prune.rounds), with recovery between"
        )
    whole = job.full(job.reference)
    slim, plan = cut(job, job.recipe.steps.prune.criterion, round, figures)
    for remark in remarks_in(plan.policies):
        job.note(round.prune, remark)
    scored = figures.pop("scored", None)
    if scored is not None and round.last:
        write_json(out / SCORES, scored)
    figures["bound"] = bound_in(plan.policies)
    if figures["bound"]:
        job.note(round.prune, figures["bound"])
    write_plan(plan, out, round.prune)
    write_state(slim, out, round.prune)
    figures["before"], figures["after"] = sizes_of(job.inputs, whole), sizes_of(job.inputs, slim)
    if round.last:
        _draw(job, whole, slim, figures)
    figures["skipped"] = [f"{skipped.group}: {skipped.cause}" for skipped in plan.skipped]


def cut(job: Job, criterion: str, round: Round, figures: dict[str, Any]) -> tuple[nn.Module, Plan]:
    """The network that the round starts from, cut to its budget, and its plan in the whole network's coordinates; how a
    latency was reached goes into `figures`.
    """
    options, whole = job.recipe.steps.prune, job.full(job.reference)
    model, done = _start(job, round)
    protect = options.protect if done is None else still_there(model, options.protect)
    slim, plan = prune_to(
        job.inputs,
        model,
        whole,
        criterion,
        options.calibration,
        protect,
        round,
        aimed=lambda how: figures.update(latency=how.to_dict()),
        progress=lambda done, of: job.progress(round.prune)("networks timed", done, of, {}),
        heard=lambda groups, scores: figures.update(scored=_curves(criterion, groups, scores)),
    )
    return slim, plan if done is None else done.then(plan)


def _curves(criterion: str, groups: Sequence[PruneGroup], scores: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """By group what its units cost together, the lowest first: [units gone, cost], at a few counts. In units of the
    loss where the criterion's are, as the criterion predicts it for this group alone.
    """
    unit = loss_units(criterion)
    found = []
    for group in groups:
        lost = curve(scores[group.name], unit or "additive")
        at = sorted({round(place) for place in np.linspace(0, len(lost) - 1, CURVE)})
        told = [[int(count), float(lost[count])] for count in at]
        found.append(
            {"name": group.name, "granularity": group.granularity, "units": len(group), "curve": told}
        )
    return {"criterion": criterion, "unit": "loss" if unit else "score", "groups": found}


def still_there(model: nn.Module, protect: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns that speak of something in `model`, parts of which are gone."""
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    return tuple(pattern for pattern in protect if any(matches(name, pattern) for name in names))


def start(job: Job, round: Round) -> str:
    """The step whose network the round cuts: the recovery before it, or adjust, or trim, or the reference's."""
    if round.before is not None:
        return round.before.recover
    steps = job.recipe.steps
    return (
        "adjust" if steps.adjust.edits or steps.adjust.do else "trim" if steps.trim.blocks else job.reference
    )


def before_adjusting(job: Job) -> tuple[nn.Module, Plan | None]:
    """The network whose components are changed, and the plan that led there from the whole one."""
    return _left_by(job, "trim" if job.recipe.steps.trim.blocks else job.reference)


def cut_from(job: Job, round: Round, plan: Plan) -> tuple[nn.Module, Plan]:
    """The network that `start` names, and what `plan` of that round does to it, in its coordinates."""
    model, done = _start(job, round)
    return model, plan if done is None else plan.since(done, fingerprint(model))


def _start(job: Job, round: Round) -> tuple[nn.Module, Plan | None]:
    """The network that the round cuts, and the plan that led there from the whole one."""
    return _left_by(job, start(job, round), round.before.prune if round.before is not None else None)


def _left_by(job: Job, step: str, structure: str | None = None) -> tuple[nn.Module, Plan | None]:
    if step == job.reference:
        return job.full(step), None
    return job.slim(step, structure or step), job.plan(structure or step)


def prune_to(
    inputs: Inputs,
    model: nn.Module,
    reference: nn.Module,
    criterion: str | Score,
    examples: int,
    protect: tuple[str, ...],
    round: Round = ONCE,
    metrics: Collection[str] | None = None,
    **told: Any,
) -> tuple[nn.Module, Plan]:
    """`model` cut to the round's share of the recipe's budget, relative to `reference`, by its prune step's options; to
    that on some `metrics` alone, where they are given.
    """
    options = inputs.recipe.steps.prune
    granularity = options.granularity or DEFAULT_GRANULARITY
    try:
        return prune(
            model,
            inputs.example(1),
            budget=_bounds(inputs, model, reference, round, metrics),
            criterion=criterion,
            scope=_scope(options.scope, criterion),
            granularity=granularity,
            round_to=int(options.round_to),
            protect=protect,
            calibration=calibration(inputs, examples),
            loss=inputs.task().loss,
            seed=inputs.recipe.seed,
            reference=reference,
            runtime=inputs.recipe.runtime,
            batch_size=inputs.recipe.steps.measure.batch_sizes[0],
            folded=folds(inputs.recipe),
            **told,
        )
    except BudgetError as error:
        raise _out_of_reach(error, inputs, reference) from None


def _bounds(
    inputs: Inputs, model: nn.Module, reference: nn.Module, round: Round, metrics: Collection[str] | None
) -> str:
    """The round's budget: counts of what `model` may have, and a share of the reference's time and memory, or so much
    of them.
    """
    counted = {
        metric: count
        for metric, count in absolute(inputs, reference).items()
        if metrics is None or metric in metrics
    }
    measured = [
        limit
        for limit in Budget.parse(inputs.recipe.budget).limits
        if limit.metric in MEASURED and (metrics is None or limit.metric in metrics)
    ]
    parts = [round.budget(counted, sizes_of(inputs, model))] if counted else []
    return ",".join([*parts, *map(round.measured, measured)])


def _out_of_reach(error: BudgetError, inputs: Inputs, reference: nn.Module) -> BudgetError:
    """`error` in the words of the recipe: its own budget, and the options that it has."""
    recipe, full = inputs.recipe, sizes_of(inputs, reference)
    options = recipe.steps.prune
    levers = Levers(
        scope=options.scope,
        granularity=options.granularity or DEFAULT_GRANULARITY,
        protect=options.protect,
        round_to=int(options.round_to),
    )
    fix = levers.told(lambda name: f"steps.prune.{name}")
    told = str(error).partition(". Fix:")[
        0
    ]  # milliseconds are told with the reference's, measured beside them
    known = [nearest_told(m, reached, full[m]) for m, reached in error.missed.items() if m in full]
    if known and len(known) == len(error.missed):
        told = "; ".join(known)
    return BudgetError(
        f"The budget {recipe.budget} cannot be met: {told}. "
        f"{fix}, or drop {'more' if recipe.steps.trim.blocks else 'residual'} blocks first (steps.trim.blocks) or "
        "adjust components (steps.adjust.edits)",
        nearest=error.nearest,
        metric=error.metric,
        missed=error.missed,
    )


def _scope(asked: str, criterion: str | Score) -> str:
    """Criteria in other units than the loss, such as those of controls, rank among groups that are alike."""
    if asked in ("auto", "loss"):
        return "loss" if loss_units(criterion) else "global"
    return asked


def _draw(job: Job, whole: nn.Module, slim: nn.Module, figures: Mapping[str, Any]) -> None:
    log = event_log(job, "structure")
    if log is not None:
        sides = ((whole, figures["before"]), (slim, figures["after"]))
        log.structure(*({**sizes, "layers": _layers(model)} for model, sizes in sides))
        log.close()


def _layers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.ndim > 1}


def absolute(inputs: Inputs, reference: nn.Module) -> dict[str, int]:
    """The counts in the recipe's budget, so that they mean the same once blocks are gone."""
    sizes = sizes_of(inputs, reference)
    limits = [limit for limit in Budget.parse(inputs.recipe.budget).limits if limit.metric in sizes]
    return {limit.metric: int(limit.absolute(sizes[limit.metric])) for limit in limits}


def sizes_of(inputs: Inputs, model: nn.Module) -> dict[str, int]:
    counted = {"macs": count_macs(model, inputs.example(1)), "params": count_params(model)}
    return {**counted, "size": state_bytes(model)}


def calibration(inputs: Inputs, examples: int) -> list[Any]:
    batches = inputs.data.batches("train", BATCH, limit=examples)
    return [place(batch, torch.device(inputs.recipe.device)) for batch in batches]


def calibration_loss(inputs: Inputs, examples: int) -> Callable[[nn.Module], float]:
    """The mean task loss of a network on the first training examples."""
    task, batches = inputs.task(), calibration(inputs, examples)

    @torch.no_grad()
    def loss(model: nn.Module) -> float:
        model.eval()
        losses = [float(task.loss(call(model, task.inputs(batch)), batch)) for batch in batches]
        return sum(losses) / len(losses)

    return loss
