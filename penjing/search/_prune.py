"""`prune`: choose units, plan, cut, prove."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from penjing.core import Budget, BudgetError, PlanError, TraceError, UsageError, VerificationError
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan, Skipped
from penjing.criteria import Context, Score, prepare_criterion, unit_scores
from penjing.search._cost import CostModel
from penjing.search._select import (
    DEFAULT_GRANULARITY,
    Rounding,
    Selection,
    across,
    check_ratio,
    lowest,
    names_of,
    prunable,
    ratios_per_group,
    uniform,
)
from penjing.structure import ExampleInputs, Structure, trace
from penjing.surgery import Cut, Verification, apply, check, cut, plan_removal

SCOPES = ("uniform", "global")


def prune(
    model: nn.Module,
    example_inputs: ExampleInputs | list[ExampleInputs],
    ratio: float | Mapping[str, float] | None = None,
    budget: str | Budget | None = None,
    criterion: str | Score = "l2",
    scope: str = "uniform",
    granularity: Sequence[str] = DEFAULT_GRANULARITY,
    protect: Sequence[str] = (),
    min_kept: int = 1,
    round_to: int = 1,
    exact_only: bool = False,
    calibration: Iterable[Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    seed: int = 0,
) -> tuple[nn.Module, Plan]:
    """A smaller network, proven equal to the masked one, and the plan that made it. `model` is left untouched.

    Give exactly one of `ratio` (share of units removed per group, inside (0, 1), or {path pattern: share}) and
    `budget` ("macs<=0.5x", "params<=2M", comma means and). Per group, max(min_kept, round_to * floor(n (1 - ratio) /
    round_to + 1/2)) units stay. A group that fails verification is frozen, named in `plan.skipped`, and the rest is
    planned again. A budget that holds already gives a copy and a plan without edits.

    Raises `UsageError` for arguments that cannot work, `BudgetError` (with the nearest) for a budget out of reach,
    `TraceError` if the forward cannot be followed, `VerificationError` if nothing can be removed and proven.
    """
    _check_arguments(ratio, budget, scope)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed={seed!r} must be an integer of at least 0")
    granularity, protect = names_of("granularity", granularity), names_of("protect", protect)
    structure = trace(model, example_inputs)
    groups = prunable(structure, granularity=granularity, protect=protect, exact_only=exact_only)
    if not groups:
        raise VerificationError(_nothing(structure))
    parsed = Budget.parse(budget) if isinstance(budget, str) else budget
    if parsed is not None and _BudgetCost(structure, parsed).excess({}) <= 1:
        plan = plan_removal(structure, {})
        return apply(model, plan), plan
    score = prepare_criterion(criterion, model, Context(calibration=calibration, loss=loss, seed=seed))
    scores = {group.name: unit_scores(score, group, model) for group in groups}
    chooser = _Chooser(structure, scores, Rounding(min_kept=min_kept, round_to=round_to), scope)

    def choose(allowed: Sequence[PruneGroup]) -> Selection:
        if parsed is not None:
            return chooser.for_budget(allowed, parsed)
        assert ratio is not None
        return chooser.for_ratio(allowed, ratio)

    return _prove(model, example_inputs, structure, groups, choose)


def _check_arguments(ratio: object, budget: object, scope: str) -> None:
    if (ratio is None) == (budget is None):
        raise UsageError("give exactly one of ratio and budget, e.g. ratio=0.5 or budget='macs<=0.5x'")
    if scope not in SCOPES:
        raise UsageError(f"scope={scope!r} is unknown; known: {', '.join(SCOPES)}")
    if budget is not None and not isinstance(budget, (str, Budget)):
        raise UsageError(f"budget={budget!r} must be text such as 'macs<=0.5x'")
    if isinstance(ratio, Mapping) and not all(isinstance(pattern, str) for pattern in ratio):
        raise UsageError(f"ratio={dict(ratio)!r}: its keys must be path patterns such as 'layer1.*'")
    if ratio is not None and not isinstance(ratio, Mapping):
        check_ratio(ratio)


def _nothing(structure: Structure) -> str:
    able = [f"{g.name} ({g.granularity}, {g.fidelity})" for g in structure.groups if len(g) > 1][:5]
    if able:
        return (
            "these options leave nothing that can shrink: granularity, protect or exact_only exclude every group, "
            f"such as {', '.join(able)}"
        )
    causes = sorted({f.cause for f in structure.frozen})[:5]
    return "nothing in this network can shrink. Frozen because: " + "; ".join(causes)


@dataclass(frozen=True, slots=True)
class _Chooser:
    structure: Structure
    scores: Mapping[str, np.ndarray]
    rounding: Rounding
    scope: str

    def for_ratio(self, groups: Sequence[PruneGroup], ratio: float | Mapping[str, float]) -> Selection:
        if self.scope == "global" and not isinstance(ratio, Mapping):
            return across(groups, self.scores, ratio, self.rounding)
        return uniform(groups, self.scores, ratios_per_group(groups, ratio), self.rounding)

    def for_budget(self, groups: Sequence[PruneGroup], budget: Budget) -> Selection:
        """The smallest ratio that meets the budget (by bisection), then units given back while it still holds."""
        cost = _BudgetCost(self.structure, budget)
        smallest = self._at(groups, 1 - 1e-9)
        if cost.excess(smallest) > 1:
            message, nearest = cost.shortfall(smallest)
            raise BudgetError(message, nearest=nearest)
        low, high = 0.0, 1 - 1e-9
        for _ in range(24):
            middle = (low + high) / 2
            if cost.excess(self._at(groups, middle)) > 1:
                low = middle
            else:
                high = middle
        return self._give_back(groups, self._at(groups, high), cost)

    def _at(self, groups: Sequence[PruneGroup], ratio: float) -> Selection:
        if self.scope == "global":
            return across(groups, self.scores, ratio, self.rounding)
        return uniform(groups, self.scores, {g.name: ratio for g in groups}, self.rounding)

    def _give_back(
        self, groups: Sequence[PruneGroup], selection: Selection, cost: "_BudgetCost"
    ) -> Selection:
        """One more step of units to each group in turn, as long as the budget holds."""
        for group in groups:
            removed = len(selection.get(group.name, ()))
            if not removed:
                continue
            step = min(removed, self.rounding.step(group.granularity))
            trial = {**selection, group.name: lowest(self.scores[group.name], removed - step)}
            if cost.excess(trial) <= 1:
                selection = trial
        return selection


class _BudgetCost:
    """How far a selection is from a budget on MACs and parameters."""

    def __init__(self, structure: Structure, budget: Budget) -> None:
        self._structure = structure
        self._model = CostModel(structure)
        none = structure.gone({})
        full = {"macs": self._model.macs(none), "params": self._model.params(none)}
        unknown = [limit.metric for limit in budget.limits if limit.metric not in full]
        if unknown:
            raise UsageError(
                f"prune meets budgets in macs and params; {', '.join(unknown)} is not one of them"
            )
        self._limits = {limit.metric: limit.absolute(full[limit.metric]) for limit in budget.limits}
        self._full = full

    def figures(self, selection: Selection) -> dict[str, int]:
        gone = self._structure.gone(selection)
        return {metric: getattr(self._model, metric)(gone) for metric in self._limits}

    def excess(self, selection: Selection) -> float:
        """Largest figure / limit; the budget holds at 1 or less."""
        return max(value / self._limits[metric] for metric, value in self.figures(selection).items())

    def shortfall(self, selection: Selection) -> tuple[str, float]:
        figures = self.figures(selection)
        metric = max(figures, key=lambda m: figures[m] / self._limits[m])
        reached = figures[metric]
        share = reached / self._full[metric]
        text = (
            f"{metric}<={self._limits[metric]:.0f} cannot be met: the nearest that can is {metric}<={reached} "
            f"({math.ceil(share * 1000) / 1000:g}x). Raise the budget, lower min_kept or round_to, or unprotect parts"
        )
        return text, float(reached)


def _prove(
    model: nn.Module,
    example_inputs: Any,
    structure: Structure,
    groups: Sequence[PruneGroup],
    choose: Callable[[Sequence[PruneGroup]], Selection],
) -> tuple[nn.Module, Plan]:
    """Cut and verify; culprits are frozen and the rest planned again, each group at most once."""
    allowed, skipped = list(groups), []
    while allowed:
        selection = {name: units for name, units in choose(allowed).items() if units}
        if not selection:
            raise VerificationError(
                "at this ratio no group loses a unit: raise the ratio or lower min_kept and round_to"
            )
        trial = _Trial(model, structure, example_inputs, selection)
        made, outcome = trial.run(selection, skipped=tuple(skipped))
        if made is not None and outcome.passed:
            return made.slim, made.plan
        if not skipped:
            trial.refuse_unprovable()
        culprits = trial.culprits(list(selection)) or list(selection)[:1]
        skipped.extend(Skipped(group=name, cause=outcome.cause) for name in culprits)
        allowed = [g for g in allowed if g.name not in culprits]
    raise VerificationError(
        "no group could be removed and proven: " + "; ".join(f"{s.group}: {s.cause}" for s in skipped[:5])
    )


@dataclass(frozen=True, slots=True)
class _Trial:
    """Cuts of one network, proven or not."""

    model: nn.Module
    structure: Structure
    example_inputs: Any
    selection: Selection

    def run(
        self, selection: Selection, *, skipped: tuple[Skipped, ...] = (), exact: bool = True
    ) -> tuple[Cut | None, Verification]:
        structure, example = self.structure, self.example_inputs
        try:
            plan = plan_removal(structure, selection, skipped=skipped)
            made = cut(self.model, structure, plan, example)
            proof = check(
                self.model, made.slim, structure, made.plan, example, retraced=made.traces, exact=exact
            )
            return made, proof
        except (PlanError, TraceError) as error:
            return None, Verification(passed=False, max_error=float("nan"), checked=(), cause=str(error))

    def refuse_unprovable(self) -> None:
        """A network that does not equal its own replay cannot be proven whatever is cut: say so at once."""
        _, outcome = self.run({})
        if not outcome.passed:
            raise VerificationError(
                f"this network cannot be proven even uncut: {outcome.cause}. Does its forward draw random numbers "
                "in eval mode, or leave float64? Make it deterministic for example_inputs"
            )

    def culprits(self, names: list[str]) -> list[str]:
        """Groups that fail by themselves, found by halving: a cheap re-trace first, the exact proof last."""
        for exact in (False, True):
            found = self._halve(names, exact)
            if found:
                return found
        return []

    def _halve(self, names: list[str], exact: bool) -> list[str]:
        if not names or self.run({n: self.selection[n] for n in names}, exact=exact)[1].passed:
            return []
        if len(names) == 1:
            return names
        middle = len(names) // 2
        return self._halve(names[:middle], exact) + self._halve(names[middle:], exact)
