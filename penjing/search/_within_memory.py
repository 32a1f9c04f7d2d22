"""Networks cut, proven, and measured to hold no more memory than they may."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from penjing.core import Budget, BudgetError, Limit
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan
from penjing.measure import count_macs, count_params, state_bytes
from penjing.search._choose import Choice
from penjing.search._memory_model import MemoryGauge
from penjing.search._prove import prove
from penjing.structure import Structure

Choose = Callable[[Sequence[PruneGroup]], Choice]
Cut = tuple[nn.Module, Plan, Mapping[str, int]]
BOUND = "Of the budget,"  # how the policy that names the tightest limit begins
NEAR = 0.95  # of the limit: what a network must reach to have used its budget
ROUNDS = 4


def bound_in(policies: Sequence[str]) -> str | None:
    """Which limit of a budget with several bound, in words, from a plan's policies."""
    return next((text for text in reversed(policies) if text.startswith(BOUND)), None)


@dataclass(frozen=True, slots=True)
class Cutting:
    """A network that is cut as `choose` says, with a limit in bytes on what a forward holds where there is a gauge."""

    model: nn.Module
    example_inputs: Any
    structure: Structure
    groups: Sequence[PruneGroup]
    gauge: MemoryGauge | None = None
    limit: float = 0.0

    def run(self, choose: Choose, narrowest: Choose | None = None) -> Cut:
        """The network, its plan, and the units kept by group name; memory is predicted anew from each measured network,
        at most four times.

        Where too little memory is predicted to be in reach, what `narrowest` leaves is measured before that is said.
        Raises `BudgetError` where none was measured within the limit.
        """
        best: tuple[float, Cut] | None = None
        seen: list[float] = []
        for _ in range(ROUNDS):
            try:
                found = self._within_reach(choose, narrowest)
            except BudgetError:
                if best is None:
                    raise
                break
            if self.gauge is None:
                return found
            slim, _, kept = found
            measured, predicted = self.gauge.measured(slim), self.gauge.predicted(kept)
            seen.append(measured)
            if measured <= self.limit and (best is None or measured > best[0]):
                best = measured, found
            others_bind = max(measured, predicted) < NEAR * self.limit
            if measured <= self.limit and (others_bind or measured >= NEAR * self.limit):
                break
            self.gauge.learn(kept, measured)
        if best is None:
            raise self._missed(min(seen))
        return best[1]

    def told(self, slim: nn.Module, plan: Plan, budget: Budget, **measured: float) -> Plan:
        """The plan, saying of a budget with several limits which one bound; `measured` are figures that are known."""
        if len(budget.limits) < 2:
            return plan
        shares = {
            limit.metric: (measured.get(limit.metric) or self._figure(limit.metric, slim))
            / limit.absolute(self._figure(limit.metric, self.model) if limit.relative else None)
            for limit in budget.limits
        }
        tightest, *others = sorted(shares, key=shares.__getitem__, reverse=True)
        rest = ", ".join(f"{metric} {shares[metric]:.3f}" for metric in others)
        text = f"{BOUND} {tightest} bound: {shares[tightest]:.3f} of its limit is used; of the others: {rest}"
        return replace(plan, policies=(*plan.policies, text))

    def _figure(self, metric: str, model: nn.Module) -> float:
        """Of a network as it is, in the metric's base unit."""
        if metric == "macs":
            return count_macs(model, first(self.example_inputs))
        if metric == "memory" and self.gauge is not None:
            return self.gauge.measured(model)
        return {"params": count_params, "size": state_bytes}[metric](model)

    def _within_reach(self, choose: Choose, narrowest: Choose | None) -> Cut:
        try:
            return self._once(choose)
        except BudgetError as error:
            if self.gauge is None or narrowest is None or "memory" not in error.missed:
                raise
        slim, _, kept = self._once(narrowest)
        self.gauge.learn(kept, self.gauge.measured(slim))
        return self._once(choose)

    def _once(self, choose: Choose) -> Cut:
        last: dict[str, Choice] = {}

        def chosen(allowed: Sequence[PruneGroup]) -> Choice:
            last["choice"] = choose(allowed)
            return last["choice"]

        slim, plan = prove(self.model, self.example_inputs, self.structure, self.groups, chosen)
        gone = last["choice"].selection
        return slim, plan, {g.name: len(g) - len(gone.get(g.name, ())) for g in self.structure.groups}

    def _missed(self, nearest: float) -> BudgetError:
        assert self.gauge is not None
        return BudgetError(
            f"the network tried that holds least took {nearest / 1e6:.4g}MB, measured, and not "
            f"{self.limit / 1e6:.4g}MB; the whole one takes {self.gauge.full / 1e6:.4g}MB",
            nearest=nearest,
            metric="memory",
        )


def in_bytes(budget: Budget, reference: float) -> Budget:
    """`budget` with its limit on memory absolute; `reference` bytes are those of the reference."""
    return Budget(
        limits=tuple(
            Limit(metric="memory", number=limit.absolute(reference) / 1000, unit="KB")
            if limit.metric == "memory"
            else limit
            for limit in budget.limits
        )
    )


def first(example_inputs: Any) -> Any:
    """The inputs that figures are of, where several alternatives are given."""
    return example_inputs[0] if isinstance(example_inputs, list) else example_inputs
