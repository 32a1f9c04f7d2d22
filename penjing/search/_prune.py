"""`prune`: choose units, plan, cut, prove."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from penjing.core import Budget, BudgetError, Limit, PlanError, TraceError, UsageError, VerificationError
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan, Skipped
from penjing.criteria import (
    CRITERIA,
    Context,
    Score,
    loss_units,
    prepare_criterion,
    remarks_of,
    unit_scores,
)
from penjing.measure import Timekeeper
from penjing.search._choose import BudgetCost, Choice, Chooser
from penjing.search._designs import learn_table
from penjing.search._latency_table import LatencyTable
from penjing.search._levers import Levers
from penjing.search._select import (
    DEFAULT_GRANULARITY,
    Rounding,
    Selection,
    check_ratio,
    names_of,
    prunable,
    ratios_per_group,
)
from penjing.search._to_latency import Aimed, Candidate, to_latency
from penjing.structure import (
    ExampleInputs,
    Structure,
    alone,
    collect_young,
    collector_paused,
    merge_weights,
    refuse_unsupported,
    trace_merged,
)
from penjing.surgery import Cut, Verification, apply, check, cut, plan_removal

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
    aimed: Callable[[Aimed], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[nn.Module, Plan]:
    """A smaller network, proven equal to the masked one, and the plan that made it. `model` is left untouched.

    Give exactly one of `ratio` (share of units removed per group, inside (0, 1), or {path pattern: share}) and
    `budget` ("macs<=0.5x", "params<=2M", "latency<=12ms", comma means and). Per group, max(min_kept, round_to *
    floor(n (1 - ratio) / round_to + 1/2)) units stay. `scope` says what units are ranked against: "uniform" those of their own group, at one
    ratio for all; "global" those of all groups of identical topology; "loss" (for budgets, with criteria in units of
    the loss) all units: what goes is what saves most MACs or parameters per loss. A group that fails verification is
    frozen, named in `plan.skipped`, and the rest is planned again. A budget that holds already gives a copy and a plan
    without edits. Weights that a forward computes (weight_norm, spectral_norm, parametrizations) are merged first;
    criteria see the merged network. A network with kernels that know no float64 is proven in float32, to 1e-5, and a
    warning and the plan say so.

    A budget on latency is one of `runtime` ("eager", "onnx", ...) at `batch_size` (None: that of example_inputs) and
    `threads`, relative to `reference` (None: `model`): networks of random widths are timed first, and the one that is
    returned was measured within the budget, in turns with the reference; `aimed` is told how, `progress` how many of
    the networks are timed. It is a promise on this machine as it was, not on others.

    Raises `UsageError` for arguments that cannot work, `BudgetError` (with the nearest) for a budget out of reach,
    `TraceError` if the forward cannot be followed, `VerificationError` if nothing can be removed and proven.
    """
    _check_arguments(ratio, budget, scope)
    if scope == "loss":
        _check_loss(ratio, criterion)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed={seed!r} must be an integer of at least 0")
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
                clock=Clock(
                    runtime=runtime,
                    batch_size=batch_size,
                    threads=threads,
                    reference=reference,
                    seed=seed,
                    aimed=aimed,
                    progress=progress,
                ),
            )
    return slim, plan if merging is None else merging.then(plan)


@contextmanager
def _advised(levers: Levers) -> Iterator[None]:
    try:
        yield
    except BudgetError as error:
        raise BudgetError(f"{error}. {levers.told()}", nearest=error.nearest, metric=error.metric) from None


def _pruned(
    model: nn.Module,
    example_inputs: Any,
    aim: Any,
    *,
    may_shrink: Callable[[Structure], tuple[PruneGroup, ...]],
    prepared: Callable[[nn.Module, Structure], Score],
    chooser: Callable[..., Chooser],
    clock: "Clock",
) -> tuple[nn.Module, Plan]:
    """A smaller network and its plan; `aim` is a ratio or a budget."""
    structure = trace_merged(model, example_inputs)
    groups = may_shrink(structure)
    if not groups:
        raise VerificationError(_nothing(structure))
    timed = aim.limit("latency") if isinstance(aim, Budget) else None
    if isinstance(aim, Budget) and timed is None and BudgetCost(structure, aim).excess({}) <= 1:
        return _untouched(model, structure)
    if isinstance(aim, Mapping):
        aim = ratios_per_group(groups, aim)

    def scored() -> Chooser:
        score = prepared(model, structure)
        scores = {group.name: unit_scores(score, group, model) for group in groups}
        return chooser(structure=structure, scores=scores, remarks=remarks_of(score))

    if timed is not None:
        return _clocked(model, example_inputs, structure, groups, aim, scored, clock)
    found = scored()

    def choose(allowed: Sequence[PruneGroup]) -> Choice:
        return found.for_budget(allowed, aim) if isinstance(aim, Budget) else found.for_ratio(allowed, aim)

    return _prove(model, example_inputs, structure, groups, choose)


def _untouched(model: nn.Module, structure: Structure) -> tuple[nn.Module, Plan]:
    plan = plan_removal(structure, {})
    return apply(model, plan), plan


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


def _clocked(
    model: nn.Module,
    example_inputs: Any,
    structure: Structure,
    groups: Sequence[PruneGroup],
    budget: Budget,
    scored: Callable[[], Chooser],
    clock: Clock,
) -> tuple[nn.Module, Plan]:
    """The network whose measured time is within the budget."""
    limit = budget.limit("latency")
    assert limit is not None
    reference = model if clock.reference is None else clock.reference
    with Timekeeper(
        reference=reference,
        example_inputs=_first(example_inputs),
        runtime=clock.runtime,
        batch_size=clock.batch_size,
        threads=clock.threads,
    ) as keeper:
        most = limit.absolute(keeper.milliseconds)
        others = tuple(one for one in budget.limits if one.metric != "latency")
        within = not others or BudgetCost(structure, Budget(limits=others)).excess({}) <= 1
        if within and keeper.time(model, operators=False).milliseconds <= most:
            return _untouched(model, structure)
        found = scored()
        table = learn_table(
            model, structure, groups, keeper, found.rounding, seed=clock.seed, progress=clock.progress
        )
        absolute = Budget(limits=(Limit(metric="latency", number=most, unit="ms"), *others))

        def made(told: LatencyTable) -> Candidate:
            timing, last = replace(found, table=told), {}

            def choose(allowed: Sequence[PruneGroup]) -> Choice:
                choice = timing.for_budget(allowed, absolute)
                last.update(selection=choice.selection)
                return choice

            slim, plan = _prove(model, example_inputs, structure, groups, choose)
            gone = last["selection"]
            kept = {g.name: len(g) - len(gone.get(g.name, ())) for g in structure.groups}
            return Candidate(slim, plan, told.milliseconds(kept))

        slim, plan, how = to_latency(made, table, keeper, most)
    if clock.aimed is not None:
        clock.aimed(how)
    return slim, plan


def _first(example_inputs: Any) -> Any:
    return example_inputs[0] if isinstance(example_inputs, list) else example_inputs


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


def _prove(
    model: nn.Module,
    example_inputs: Any,
    structure: Structure,
    groups: Sequence[PruneGroup],
    choose: Callable[[Sequence[PruneGroup]], Choice],
) -> tuple[nn.Module, Plan]:
    """Cut and verify; culprits are frozen and the rest planned again, each group at most once.

    Groups with tied counts can only be cut together: they stand trial, and are frozen, together.
    """
    allowed, skipped = list(groups), []
    while allowed:
        choice = choose(allowed)
        if not choice.selection and skipped:
            break
        if not choice.selection:
            raise VerificationError(
                "at this ratio no group loses a unit: raise the ratio or lower min_kept and round_to"
                + "".join(f"; {note}" for note in choice.policies[:5])
            )
        trial = _Trial(model, structure, example_inputs, choice)
        made, outcome = trial.run(choice.selection, skipped=tuple(skipped))
        if made is not None and outcome.passed:
            return made.slim, _noted(made.plan, outcome)
        if not skipped:
            trial.refuse_unprovable()
        culprits = trial.culprits(outcome.cause)
        skipped.extend(
            Skipped(group=name, cause=cause + _hint(structure.group(name), choice))
            for name, cause in culprits.items()
        )
        allowed = [g for g in allowed if g.name not in culprits]
    raise VerificationError(
        "no group could be removed and proven: " + "; ".join(f"{s.group}: {s.cause}" for s in skipped[:5])
    )


def _hint(group: PruneGroup, choice: Choice) -> str:
    """`torch.einsum` and other code take another way round a dim of size 1."""
    lonely = len(group) - len(choice.selection.get(group.name, ())) == 1
    told = ". Code may do something else where a single unit stays: protect the part, or in Python give min_kept=2"
    return told if lonely else ""


def _noted(plan: Plan, proof: Verification) -> Plan:
    """The plan, saying loudly where the proof is a weaker one."""
    if not proof.note:
        return plan
    warnings.warn(proof.note, stacklevel=5)
    return replace(plan, policies=(*plan.policies, proof.note))


@dataclass(frozen=True, slots=True)
class _Trial:
    """Cuts of one network, proven or not."""

    model: nn.Module
    structure: Structure
    example_inputs: Any
    choice: Choice

    def run(
        self, selection: Selection, *, skipped: tuple[Skipped, ...] = (), exact: bool = True
    ) -> tuple[Cut | None, Verification]:
        structure, example = self.structure, self.example_inputs
        try:
            plan = plan_removal(structure, selection, skipped=skipped, policies=self.choice.policies)
            made = cut(self.model, structure, plan, example)
            proof = check(
                self.model, made.slim, structure, made.plan, example, retraced=made.traces, exact=exact
            )
            if not proof.passed:
                collect_young()
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

    def culprits(self, together: str) -> dict[str, str]:
        """Groups that fail by themselves, with their causes, found by halving: a cheap re-trace first, the exact proof
        last. Where none does, the first bears the cause of all `together`.
        """
        parts = self._parts()
        for exact in (False, True):
            found = self._halve(parts, exact)
            if found:
                return found
        return dict.fromkeys(parts[0], together)

    def _parts(self) -> list[list[str]]:
        """The selected groups; those with tied counts together."""
        part_of: dict[str, list[str]] = {}
        for names in self.structure.couplings.together():
            chosen = [n for n in names if n in self.choice.selection]
            part_of.update(dict.fromkeys(chosen, chosen))
        parts = [part_of.get(name, [name]) for name in self.choice.selection]
        return [part for part, name in zip(parts, self.choice.selection, strict=True) if part[0] == name]

    def _halve(self, parts: list[list[str]], exact: bool) -> dict[str, str]:
        selection = {name: self.choice.selection[name] for part in parts for name in part}
        if not selection:
            return {}
        outcome = self.run(selection, exact=exact)[1]
        if outcome.passed:
            return {}
        if len(parts) == 1:
            return dict.fromkeys(parts[0], outcome.cause)
        middle = len(parts) // 2
        return self._halve(parts[:middle], exact) | self._halve(parts[middle:], exact)
