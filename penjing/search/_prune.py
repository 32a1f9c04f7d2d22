"""`prune`: choose units, plan, cut, prove."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from penjing.core import Budget, BudgetError, UsageError, VerificationError
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan
from penjing.criteria import (
    CRITERIA,
    Context,
    Score,
    loss_units,
    prepare_criterion,
    remarks_of,
    unit_scores,
)
from penjing.search._choose import BudgetCost, Choice, Chooser
from penjing.search._levers import Levers
from penjing.search._memory_model import MemoryGauge
from penjing.search._select import (
    DEFAULT_GRANULARITY,
    Rounding,
    check_ratio,
    names_of,
    prunable,
    ratios_per_group,
)
from penjing.search._shared_tables import SharedTables
from penjing.search._to_latency import Aimed
from penjing.search._within_memory import Cutting, first, in_bytes
from penjing.search._within_time import Clock, untouched, within_time
from penjing.structure import (
    ExampleInputs,
    Structure,
    alone,
    collector_paused,
    merge_weights,
    refuse_unsupported,
    trace_merged,
)

Heard = Callable[[Sequence[PruneGroup], Mapping[str, np.ndarray]], None]
SCOPES = ("uniform", "global", "loss")


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
    runtime: str = "eager",
    batch_size: int | None = None,
    threads: int | None = None,
    reference: nn.Module | None = None,
    fresh: bool = False,
    folded: bool = False,
    aimed: Callable[[Aimed], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    tables: SharedTables | None = None,
    heard: Heard | None = None,
) -> tuple[nn.Module, Plan]:
    """A smaller network, proven equal to the masked one, and the plan that made it. `model` is left untouched.

    Give exactly one of `ratio` (share of units removed per group, inside (0, 1), or {path pattern: share}) and
    `budget` ("macs<=0.5x", "params<=2M", "size<=5MB", "memory<=40MB", "latency<=12ms", comma means and). Per group,
    max(min_kept, round_to * floor(n (1 - ratio) / round_to + 1/2)) units stay. `scope` says what units are ranked
    against: "uniform" those of their own group, at one ratio for all; "global" those of all groups of identical
    topology; "loss" (for budgets, with criteria in units of the loss) all units: what goes is what saves most of the
    budget per loss. A group that fails verification is frozen, named in `plan.skipped`, and the rest is planned
    again. A budget that holds already gives a copy and a plan without edits. Weights that a forward computes
    (weight_norm, spectral_norm, parametrizations) are merged first; criteria see the merged network. A network with
    kernels that know no float64 is proven in float32, to 1e-5, and a warning and the plan say so.

    A budget on latency is one of `runtime` ("eager", "onnx", ...) at `batch_size` (None: that of example_inputs) and
    `threads`, relative to `reference` (None: `model`): networks of random widths are timed first, and the one that is
    returned was measured within the budget, in turns with the reference; `aimed` is told how, `progress` how many of
    the networks are timed. What was timed is kept in the cache folder (PENJING_CACHE) for later searches of the same
    network on this machine, unless `fresh`. `folded` times networks as `pj.fold_norms` leaves them (the reference
    stays as it is) and returns one that is not folded yet, to be trained first. It is a promise on this machine as it
    was, not on others. With `tables` it is not measured but predicted, by tables which every search that is given
    them shares.

    A budget on size is one of the bytes of parameters and buffers; one on memory is of what a forward holds at its
    worst moment (`pj.measure`'s peak_memory) at `batch_size`, predicted from the trace and measured on what is
    returned. `heard` is told the groups and the scores of their units, by group.

    Raises `UsageError` for arguments that cannot work, `BudgetError` (with the nearest) for a budget out of reach,
    `TraceError` if the forward cannot be followed, `VerificationError` if nothing can be removed and proven.
    """
    _check_arguments(ratio, budget, scope)
    if scope == "loss":
        _check_loss(ratio, criterion)
    clock = Clock(
        runtime=runtime,
        batch_size=batch_size,
        threads=threads,
        reference=reference,
        seed=seed,
        aimed=aimed,
        progress=progress,
        fresh=fresh,
        folded=folded,
        shared=tables,
    )
    granularity, protect = names_of("granularity", granularity), names_of("protect", protect)
    parsed = Budget.parse(budget) if isinstance(budget, str) else budget
    context = Context(calibration=calibration, loss=loss, seed=seed)
    rounding = Rounding(min_kept=min_kept, round_to=round_to)
    own_code = calibration is not None or callable(criterion)  # runs with the collector as ever
    with alone(), nullcontext() if own_code else collector_paused():
        refuse_unsupported(model)
        merged, merging = merge_weights(model)
        levers = Levers(
            scope=scope,
            granularity=granularity,
            protect=protect,
            round_to=round_to,
            min_kept=min_kept,
            exact_only=exact_only,
        )
        with _advised(levers):
            slim, plan = _pruned(
                merged,
                example_inputs,
                ratio if parsed is None else parsed,
                may_shrink=partial(prunable, granularity=granularity, protect=protect, exact_only=exact_only),
                prepared=partial(_prepared, criterion, context),
                chooser=partial(Chooser, rounding=rounding, scope=scope, in_loss=loss_units(criterion)),
                clock=clock,
                heard=heard,
            )
    return slim, plan if merging is None else merging.then(plan)


@contextmanager
def _advised(levers: Levers) -> Iterator[None]:
    try:
        yield
    except BudgetError as error:
        told = f"{error}. {levers.told()}"
        raise BudgetError(told, nearest=error.nearest, metric=error.metric, missed=error.missed) from None


def _pruned(
    model: nn.Module,
    example_inputs: Any,
    aim: Any,
    *,
    may_shrink: Callable[[Structure], tuple[PruneGroup, ...]],
    prepared: Callable[[nn.Module, Structure], Score],
    chooser: Callable[..., Chooser],
    clock: Clock,
    heard: Heard | None,
) -> tuple[nn.Module, Plan]:
    """A smaller network and its plan; `aim` is a ratio or a budget."""
    structure = trace_merged(model, example_inputs)
    groups = may_shrink(structure)
    if not groups:
        raise VerificationError(_nothing(structure))
    cutting = Cutting(model, example_inputs, structure, groups)
    timed = aim.limit("latency") if isinstance(aim, Budget) else None
    if isinstance(aim, Budget):
        cutting, aim = _weighed(cutting, aim, clock)
        if timed is None and BudgetCost(structure, aim, memory=cutting.gauge).excess({}) <= 1:
            return untouched(model, structure)
    if isinstance(aim, Mapping):
        aim = ratios_per_group(groups, aim)

    def scored() -> Chooser:
        score = prepared(model, structure)
        scores = {group.name: unit_scores(score, group, model) for group in groups}
        if heard is not None:
            heard(groups, scores)
        return chooser(structure=structure, scores=scores, remarks=remarks_of(score), memory=cutting.gauge)

    if timed is not None:
        return within_time(cutting, aim, scored, clock)
    found = scored()

    def choose(allowed: Sequence[PruneGroup]) -> Choice:
        return found.for_budget(allowed, aim) if isinstance(aim, Budget) else found.for_ratio(allowed, aim)

    if not isinstance(aim, Budget):
        return cutting.run(choose)[:2]
    slim, plan, _ = cutting.run(choose, lambda allowed: found.narrowest(allowed, aim))
    return slim, cutting.told(slim, plan, aim)


def _weighed(cutting: Cutting, budget: Budget, clock: Clock) -> tuple[Cutting, Budget]:
    """Where memory is limited: what a forward holds, measured, and its limit in bytes."""
    limit = budget.limit("memory")
    if limit is None:
        return cutting, budget
    gauge = MemoryGauge(
        cutting.model,
        cutting.structure,
        first(cutting.example_inputs),
        batch_size=clock.batch_size,
        threads=clock.threads,
    )
    reference = gauge.full if clock.reference is None else gauge.measured(clock.reference)
    held = in_bytes(budget, reference)
    return replace(cutting, gauge=gauge, limit=limit.absolute(reference)), held


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


def _check_loss(ratio: object, criterion: str | Score) -> None:
    if ratio is not None:
        raise UsageError("scope='loss' needs a budget to spend, such as budget='macs<=0.5x', not a ratio")
    if (callable(criterion) or criterion in CRITERIA) and not loss_units(criterion):
        able = ", ".join(name for name in sorted(CRITERIA) if loss_units(name))
        raise UsageError(
            f"scope='loss' compares scores across groups, which those of criterion {criterion!r} do not allow: choose "
            f"one in units of the loss ({able}), or scope='global'. A callable of yours says that its scores are with "
            "score.in_loss = 'additive'"
        )


def _prepared(criterion: str | Score, context: Context, model: nn.Module, structure: Structure) -> Score:
    return prepare_criterion(criterion, model, replace(context, structure=structure))


def _nothing(structure: Structure) -> str:
    able = [f"{g.name} ({g.granularity}, {g.fidelity})" for g in structure.groups if len(g) > 1][:5]
    if able:
        return (
            "these options leave nothing that can shrink: granularity, protect or exact_only exclude every group, "
            f"such as {', '.join(able)}"
        )
    causes = sorted({f.cause for f in structure.frozen})[:5]
    return "nothing in this network can shrink. Frozen because: " + "; ".join(causes)
