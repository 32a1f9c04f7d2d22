"""The steps that change structure: trim whole blocks, then prune units to the budget."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import Budget, Plan, Recipe, UsageError
from penjing.criteria import CRITERIA, Context, prepare_criterion
from penjing.measure import count_macs, count_params
from penjing.pipeline._job import Job, event_log, write_plan, write_state
from penjing.search import prune, trim

BATCH = 64
REACHABLE = ("macs", "params")


def check_budget(recipe: Recipe) -> None:
    """Raises `UsageError` for a budget on a figure that no search of this version aims at."""
    for limit in Budget.parse(recipe.budget).limits:
        if limit.metric not in REACHABLE:
            raise UsageError(
                f"The budget {limit} cannot be searched for. Give one in {' and '.join(REACHABLE)}, "
                "for example macs<=0.5x; latency, memory and size are measured afterwards."
            )


def trim_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Drops the asked number of residual blocks, each time the one that raises the calibration loss least."""
    options = job.recipe.steps.trim
    slim, plan, _ = trim(
        job.full(job.reference),
        job.inputs.example(),
        evaluate=_calibration_loss(job, options.calibration),
        drop=options.blocks,
        progress=job.progress("trim"),
    )
    write_plan(plan, out, "trim")
    write_state(slim, out, "trim")
    figures["dropped"] = list(plan.dropped)


def prune_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Removes units until the budget of the recipe, relative to the reference, is met."""
    whole = job.full(job.reference)
    slim, plan = cut(job, job.recipe.steps.prune.criterion)
    write_plan(plan, out, "prune")
    write_state(slim, out, "prune")
    figures["before"], figures["after"] = _sizes(job, whole), _sizes(job, slim)
    _draw(job, whole, slim, figures)
    figures["skipped"] = [f"{skipped.group}: {skipped.cause}" for skipped in plan.skipped]


def cut(job: Job, criterion: str) -> tuple[nn.Module, Plan]:
    """The trimmed (or whole) network cut to the budget, and its plan in the whole network's coordinates."""
    whole, options = job.full(job.reference), job.recipe.steps
    budget = _absolute(job, whole)
    if not options.trim.blocks:
        return _prune(job, whole, budget, criterion, options.prune.calibration)
    slim, plan = _prune(job, job.slim("trim", "trim"), budget, criterion, options.prune.calibration)
    return slim, job.plan("trim").then(plan)


def rehearse(job: Job) -> None:
    """Cuts the untrained network once: a budget out of reach or a wrong option fails before any training."""
    whole, options = job.fresh(), job.recipe.steps
    if options.prune.criterion not in CRITERIA:
        prepare_criterion(options.prune.criterion, whole, Context())
    if not options.trim.blocks:
        _prune(job, whole, _absolute(job, whole), "l2", calibration=1)


def _prune(
    job: Job, model: nn.Module, budget: str, criterion: str, calibration: int
) -> tuple[nn.Module, Plan]:
    options = job.recipe.steps.prune
    return prune(
        model,
        job.inputs.example(1),
        budget=budget,
        criterion=criterion,
        scope=options.scope,
        round_to=options.round_to,
        protect=options.protect,
        calibration=_calibration(job, calibration),
        loss=job.inputs.task().loss,
        seed=job.recipe.seed,
    )


def _draw(job: Job, whole: nn.Module, slim: nn.Module, figures: Mapping[str, Any]) -> None:
    log = event_log(job, "structure")
    if log is not None:
        sides = ((whole, figures["before"]), (slim, figures["after"]))
        log.structure(*({**sizes, "layers": _layers(model)} for model, sizes in sides))
        log.close()


def _layers(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in model.named_parameters() if weight.ndim > 1}


def _absolute(job: Job, reference: nn.Module) -> str:
    """The recipe's budget in counts, so that it means the same once blocks are gone."""
    sizes = _sizes(job, reference)
    limits = Budget.parse(job.recipe.budget).limits
    return ",".join(f"{limit.metric}<={int(limit.absolute(sizes[limit.metric]))}" for limit in limits)


def _sizes(job: Job, model: nn.Module) -> dict[str, int]:
    return {"macs": count_macs(model, job.inputs.example(1)), "params": count_params(model)}


def _calibration(job: Job, examples: int) -> list[Any]:
    batches = job.inputs.data.batches("train", BATCH, limit=examples)
    return [tuple(part.to(job.recipe.device) for part in batch) for batch in batches]


def _calibration_loss(job: Job, examples: int) -> Callable[[nn.Module], float]:
    task, batches = job.inputs.task(), _calibration(job, examples)

    @torch.no_grad()
    def loss(model: nn.Module) -> float:
        model.eval()
        losses = [float(task.loss(model(task.inputs(batch)), batch)) for batch in batches]
        return sum(losses) / len(losses)

    return loss
