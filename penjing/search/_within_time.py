"""Budgets on latency: learn a table on the user's runtime, choose by it, measure, and correct it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from penjing.core import Budget, BudgetError, Limit, UsageError
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan
from penjing.measure import Timekeeper
from penjing.search._choose import BudgetCost, Choice, Chooser
from penjing.search._designs import learn_table
from penjing.search._latency_table import LatencyTable, Observation
from penjing.search._select import Rounding, floor_choices, prunable
from penjing.search._shared_tables import SharedTables
from penjing.search._timed_before import Shelf, shelf_for
from penjing.search._to_latency import AIM, Aimed, Candidate, to_latency
from penjing.search._within_memory import Cutting, first
from penjing.structure import Structure, trace
from penjing.surgery import apply, fold_norms, plan_removal


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where a network's time is taken, and who is told."""

    runtime: str
    batch_size: int | None
    threads: int | None
    reference: nn.Module | None
    seed: int
    aimed: Callable[[Aimed], None] | None
    progress: Callable[[int, int], None] | None
    fresh: bool = False  # times nothing by what earlier searches saw
    folded: bool = False  # times networks with batch norms folded
    shared: SharedTables | None = None

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("threads", 1), ("seed", 0)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (value is None and name != "seed"):
                raise UsageError(f"{name}={value!r} must be an integer of at least {least}")
        if not isinstance(self.runtime, str):
            raise UsageError(f"runtime={self.runtime!r} must be a name such as 'eager' or 'onnx'")
        if not isinstance(self.reference, nn.Module | None):
            raise UsageError(f"reference must be a network (nn.Module), not {type(self.reference).__name__}")
        if not isinstance(self.shared, SharedTables | None):
            raise UsageError(f"tables must be SharedTables, not {type(self.shared).__name__}")
        if not isinstance(self.folded, bool):
            raise UsageError(f"folded={self.folded!r} must be True or False")
        for name, value in (("aimed", self.aimed), ("progress", self.progress)):
            if value is not None and not callable(value):
                raise UsageError(f"{name} must be a callable or None, not {type(value).__name__}")


def within_time(
    cutting: Cutting, budget: Budget, scored: Callable[[], Chooser], clock: Clock
) -> tuple[nn.Module, Plan]:
    """The network whose measured time is within the budget, as are its other figures; with shared tables the one whose
    predicted time is.
    """
    limit = budget.limit("latency")
    assert limit is not None
    if clock.shared is not None:
        return _predicted(cutting, budget, scored, clock, clock.shared)
    model, structure = cutting.model, cutting.structure
    with _keeper(cutting, clock) as keeper:
        most = limit.absolute(keeper.milliseconds)
        others = tuple(one for one in budget.limits if one.metric != "latency")
        costs = BudgetCost(structure, Budget(limits=others), memory=cutting.gauge) if others else None
        within = costs is None or costs.excess({}) <= 1
        if within and (_own(limit, clock, model) or keeper.time(model, operators=False).milliseconds <= most):
            return untouched(model, structure)
        found = scored()
        absolute = Budget(limits=(Limit(metric="latency", number=most, unit="ms"), *others))

        def made(told: LatencyTable) -> Candidate:
            return _made(cutting, absolute, replace(found, table=told), to_measure=True)

        def reached(before: Sequence[Observation]) -> tuple[nn.Module, Plan, Aimed]:
            table = _learnt(cutting, keeper, found.rounding, before, clock)
            notes.append(shelf.write(table.observations))
            return to_latency(
                made,
                table,
                keeper,
                most,
                exactly=partial(_exactly, cutting, replace(found, table=table), costs),
                others=costs is not None,
                cut_anyway=not within,
            )

        shelf = _shelf(cutting, keeper, found.rounding, clock)
        before, *notes = shelf.read()
        try:
            slim, plan, how = reached(before)
        except BudgetError:
            if not before:
                raise
            slim, plan, how = reached(())
        plan = cutting.told(slim, plan, absolute, latency=how.measured)
    if clock.aimed is not None:
        clock.aimed(replace(how, note="; ".join(note for note in notes if note)))
    return slim, plan


def _own(limit: Limit, clock: Clock, model: nn.Module) -> bool:
    """Whether a network's own time is asked for, which it takes by definition."""
    return limit.relative and limit.number >= 1 and clock.reference in (None, model)


def _made(cutting: Cutting, budget: Budget, timing: Chooser, *, to_measure: bool = False) -> Candidate:
    """The proven network within a budget of milliseconds by the chooser's table; `to_measure`: or the narrowest, where
    by the table not even that is.
    """
    assert timing.table is not None
    narrowest = False

    def choose(allowed: Sequence[PruneGroup]) -> Choice:
        nonlocal narrowest
        try:
            return timing.for_budget(allowed, budget)
        except BudgetError as error:
            if not to_measure or set(error.missed) != {"latency"}:
                raise
            narrowest = True
            return timing.narrowest(allowed, budget)

    slim, plan, kept = cutting.run(choose)
    return Candidate(slim, plan, timing.table.milliseconds(kept), narrowest, kept)


def _exactly(
    cutting: Cutting, timing: Chooser, others: BudgetCost | None, kept: Mapping[str, int]
) -> Candidate | None:
    """The proven network with these counts, as far as ties allow; None where that breaks the `others` limits."""
    assert timing.table is not None
    slim, plan, left = cutting.run(partial(timing.exactly, kept))
    gone = {g.name: tuple(range(left[g.name], len(g))) for g in cutting.groups}
    if others is not None and others.excess(gone) > 1:
        return None
    return Candidate(slim, plan, timing.table.milliseconds(left), kept=left)


def _predicted(
    cutting: Cutting,
    budget: Budget,
    scored: Callable[[], Chooser],
    clock: Clock,
    shared: SharedTables,
) -> tuple[nn.Module, Plan]:
    """The network that is within the budget by a table which others share; only the table's networks are timed."""
    structure, groups = cutting.structure, cutting.groups
    found, table = scored(), shared.find(structure, groups) or shared.load(structure, groups)
    if table is None or shared.reference is None:
        with _keeper(cutting, clock) as keeper:
            shared.reference = keeper.milliseconds if shared.reference is None else shared.reference
            shelf = _shelf(cutting, keeper, found.rounding, clock)
            table = _learnt(cutting, keeper, found.rounding, shelf.read()[0], clock)
            shelf.write(table.observations)
        shared.add(structure, groups, table)
    limits = (
        Limit(metric="latency", number=AIM * one.absolute(shared.reference), unit="ms")
        if one.metric == "latency"
        else one
        for one in budget.limits
    )
    made = _made(cutting, Budget(limits=tuple(limits)), replace(found, table=table))
    shared.predicted = made.predicted
    return made.slim, made.plan


def _shelf(cutting: Cutting, keeper: Timekeeper, rounding: Rounding, clock: Clock) -> Shelf:
    return shelf_for(
        cutting.model,
        cutting.structure,
        cutting.groups,
        rounding,
        place=keeper.place,
        example_inputs=cutting.example_inputs,
        fresh=clock.fresh,
    )


def _learnt(
    cutting: Cutting, keeper: Timekeeper, rounding: Rounding, before: Sequence[Observation], clock: Clock
) -> LatencyTable:
    return learn_table(
        cutting.model,
        cutting.structure,
        cutting.groups,
        keeper,
        rounding,
        seed=clock.seed,
        before=before,
        progress=clock.progress,
    )


def _keeper(cutting: Cutting, clock: Clock) -> Timekeeper:
    return Timekeeper(
        reference=cutting.model if clock.reference is None else clock.reference,
        example_inputs=first(cutting.example_inputs),
        runtime=clock.runtime,
        batch_size=clock.batch_size,
        threads=clock.threads,
        form=_folded(cutting.example_inputs) if clock.folded else None,
    )


def _folded(example_inputs: Any) -> Callable[[nn.Module], nn.Module]:
    def folded(model: nn.Module) -> nn.Module:
        return fold_norms(model, example_inputs, proven=False)[0]

    return folded


def fastest(
    model: nn.Module,
    example_inputs: Any,
    *,
    granularity: Sequence[str],
    protect: Sequence[str],
    rounding: Rounding,
    runtime: str,
    batch_size: int | None = None,
    threads: int | None = None,
    reference: nn.Module | None = None,
    folded: bool = False,
) -> tuple[float, float]:
    """Milliseconds of the narrowest network that these options allow, which keeps a tenth of every group (`folded`:
    with its batch norms folded), and of the reference (None: `model`), timed in turns. It is not proven, and nobody
    would want it: it says what is in reach.
    """
    structure = trace(model, example_inputs)
    groups = prunable(structure, granularity=granularity, protect=protect, exact_only=False)
    choices = {g.name: floor_choices(g, rounding) for g in groups}
    kept = structure.couplings.repair({name: int(counts[0]) for name, counts in choices.items()}, choices)
    gone = {g.name: tuple(range(kept[g.name], len(g))) for g in groups if kept[g.name] < len(g)}
    with Timekeeper(
        reference=model if reference is None else reference,
        example_inputs=first(example_inputs),
        runtime=runtime,
        batch_size=batch_size,
        threads=threads,
        form=_folded(example_inputs) if folded else None,
    ) as keeper:
        narrow = apply(model, plan_removal(structure, gone))
        return keeper.time(narrow, operators=False).milliseconds, keeper.milliseconds


def untouched(model: nn.Module, structure: Structure) -> tuple[nn.Module, Plan]:
    """A copy, and a plan without edits."""
    plan = plan_removal(structure, {})
    return apply(model, plan), plan
