"""Adjustments and widths together, as `penjing shape` chooses them: the way "adjusted" of quality_latency.py."""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

import penjing as pj
from benchmarks.quality_ours import Cut
from benchmarks.quality_pairs import Case
from benchmarks.quality_recovery import recovered
from penjing.core import BudgetError, Plan, Recipe
from penjing.measure import Timekeeper
from penjing.pipeline._adjust import Found, adjusted, look, share_of
from penjing.pipeline._job import Inputs
from penjing.recover import evaluate, rebuild
from penjing.recover._evaluate import within_noise
from penjing.search import DEFAULT_GRANULARITY

ROUND_TO = 8
BRIEF = 10.0  # CPU seconds of the recovery that candidates are compared after, on the selection split
WALK = 400.0  # seconds that the search for adjustments may take


def cut_with_adjustments(
    case: Case, share: float, keeper: Timekeeper, batch_size: int
) -> tuple[Cut, dict[str, Any]]:
    """The best of widths alone and widths after adjustments, by a brief recovery; and what was tried."""
    inputs, whole, tried = _inputs(case, share, keeper, batch_size), case.copy().eval(), dict[str, Any]()
    cuts, lost = dict[int, Cut](), math.inf
    try:
        cuts[0] = _cut(case, whole, None, share, keeper, batch_size)
        lost = _loss(case, cuts[0].model) - _loss(case, whole)
    except BudgetError as error:
        tried["0"] = str(error)[:200]
    found = look(inputs, whole, seconds=WALK)
    for number in found.numbers(share_of(inputs, whole, found), lost):
        start, plan = adjusted(inputs, whole, found, number)
        try:
            cuts[number] = _cut(case, start, plan, share, keeper, batch_size)
        except BudgetError as error:
            tried[str(number)] = str(error)[:200]
    if not cuts:
        raise RuntimeError(f"neither widths nor adjustments reach {share:g}x of the milliseconds: {tried}")
    right = {number: _brief(case, cut) for number, cut in cuts.items()}
    best = max(right, key=lambda number: int(right[number].sum()))
    if 0 in right and within_noise(right[best], right[0]):  # as the step choose does: the simpler one
        best = 0
    tried |= {str(number): float(one.double().mean()) for number, one in right.items()}
    return cuts[best], {"chosen": best, "tried": tried, "did": list(found.sentences(best)), **_about(found)}


def _inputs(case: Case, share: float, keeper: Timekeeper, batch_size: int) -> Inputs:
    """The case's data and options, for a budget of milliseconds."""
    values = case.recipe.model_dump()
    values["steps"]["measure"] |= {"batch_sizes": (batch_size,)}
    recipe = Recipe.model_validate({**values, "budget": f"latency<={share}x", "runtime": keeper.runtime})
    inputs = case.inputs.settled(recipe)
    inputs.__dict__["data"] = case.data
    return inputs


def _cut(
    case: Case, start: nn.Module, done: Plan | None, share: float, keeper: Timekeeper, batch_size: int
) -> Cut:
    options, whole = case.recipe.steps.prune, case.copy().eval()
    model, plan = pj.prune(
        start,
        case.example,
        budget=f"latency<={share}x",
        criterion=options.criterion,
        scope="loss",
        granularity=options.granularity or DEFAULT_GRANULARITY,
        round_to=ROUND_TO,
        calibration=case.calibration(),
        loss=case.task.loss,
        batch_size=batch_size,
        threads=1,
        runtime=keeper.runtime,
        seed=case.seed,
        reference=whole,
    )
    begun = time.process_time()
    rebuild(model, start, plan, case.task, case.data, when="auto", seed=case.seed)
    spent = time.process_time() - begun
    return Cut(model=model, plan=plan if done is None else done.then(plan), seconds=spent)


def _brief(case: Case, cut: Cut) -> Tensor:
    """Whether each example of the selection split is answered rightly after a brief recovery of a copy."""
    short = replace(case, pair=replace(case.pair, seconds=BRIEF + cut.seconds))
    model = copy.deepcopy(cut.model)
    recovered(short, replace(cut, model=model))
    found = evaluate(model, case.task, case.data, "selection")
    return found["predictions"] == found["targets"]


def _loss(case: Case, model: nn.Module) -> float:
    return float(evaluate(model, case.task, case.data, "selection")["loss"])


def _about(found: Found) -> Mapping[str, Any]:
    return {"looked_at": len(found.record["options"]), "late": found.record["late"]}
