"""How many units stay in each group, by ratio or by budget, and which: coupled groups agree on their counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from penjing.core import Budget, BudgetError, UsageError
from penjing.core._groups import PruneGroup
from penjing.search._by_loss import ByLoss, curve
from penjing.search._cost import CostModel
from penjing.search._latency_table import LatencyTable
from penjing.search._memory_model import MemoryGauge
from penjing.search._prices import Priced
from penjing.search._select import Rounding, Selection, Wish, across, floor_choices, lowest, uniform
from penjing.structure import Structure

GIVING = 4  # rounds in which units are given back
COARSER = (2, 4)  # times the step: kernels compute blocks of 16 or 32 channels, filled or not


@dataclass(frozen=True, slots=True)
class Choice:
    """The units that go, and in words what count ties made of the widths that were wished for."""

    selection: Selection
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chooser:
    structure: Structure
    scores: Mapping[str, np.ndarray]
    rounding: Rounding
    scope: str
    in_loss: str = ""  # what a score is in units of the loss: "additive" or "cumulative"
    table: LatencyTable | None = None  # where the budget is one of milliseconds
    memory: MemoryGauge | None = None  # where it is one of memory
    remarks: tuple[str, ...] = ()  # what the criterion says of its scores

    def for_ratio(self, groups: Sequence[PruneGroup], ratio: float | Mapping[str, float]) -> Choice:
        """`ratio` is one for all, or by group name: groups without one stay whole."""
        if isinstance(ratio, Mapping):
            return self._choice(
                uniform(groups, {g.name: ratio[g.name] for g in groups if g.name in ratio}, self.rounding)
            )
        return self._choice(self._wish(groups, ratio))

    def for_budget(self, groups: Sequence[PruneGroup], budget: Budget) -> Choice:
        """The smallest ratio that meets the budget (by bisection), then units given back while it still holds.

        Where milliseconds rise in stairs, steps of several lengths are tried: what keeps most MACs is chosen.
        """
        cost = BudgetCost(self.structure, budget, self.table, self.memory)
        smallest = self._selection(self._least(groups, cost))
        if cost.excess(smallest) > 1:
            raise cost.shortfall(smallest)
        if self.scope == "loss":
            kept = self._by_loss(groups, cost).run(lambda trial: cost.excess(self._selection(trial)) <= 1)
            return self._told(kept, ())
        found = [self._evenly(groups, cost)]
        if "latency" in cost.stepped:
            coarse = (replace(self, rounding=replace(self.rounding, coarser=times)) for times in COARSER)
            found += [self._finished(groups, chooser._evenly(groups, cost), cost) for chooser in coarse]
        inside = [one for one in found if cost.excess(self._selection(one[1])) <= 1]
        wish, kept = max(inside, key=lambda one: cost.macs(self._selection(one[1])))
        return self._told(kept, self._notes(wish))

    def narrowest(self, groups: Sequence[PruneGroup], budget: Budget) -> Choice:
        """The least that the options allow, whatever it costs."""
        cost = BudgetCost(self.structure, budget, self.table, self.memory)
        return self._told(self._least(groups, cost), ())

    def exactly(self, kept: Mapping[str, int], groups: Sequence[PruneGroup]) -> Choice:
        """These counts or the next below that the options allow, as far as ties do; what is not among `groups` stays
        whole.
        """
        choices = {g.name: floor_choices(g, self.rounding) for g in groups}
        below = {name: counts[counts <= max(kept[name], counts[0])][-1] for name, counts in choices.items()}
        return self._choice(Wish({name: int(count) for name, count in below.items()}, choices))

    def _least(self, groups: Sequence[PruneGroup], cost: "BudgetCost") -> dict[str, int]:
        if self.scope == "loss":
            return self._by_loss(groups, cost).narrowest()
        return self._repaired(self._wish(groups, 1 - 1e-9))

    def _finished(
        self, groups: Sequence[PruneGroup], found: tuple[Wish, dict[str, int]], cost: "BudgetCost"
    ) -> tuple[Wish, dict[str, int]]:
        """What longer steps left of the budget, given back in this chooser's own."""
        wish, kept = found
        choices = {g.name: self.rounding.choices(g, kept[g.name]) for g in groups}
        return wish, self._give_back(groups, Wish(kept, choices), cost)

    def _evenly(self, groups: Sequence[PruneGroup], cost: "BudgetCost") -> tuple[Wish, dict[str, int]]:
        """What one ratio for all wishes for and what is kept within the budget, or the least where none is."""
        low, high = 0.0, 1 - 1e-9
        for _ in range(24):
            middle = (low + high) / 2
            if cost.excess(self._selection(self._repaired(self._wish(groups, middle)))) > 1:
                low = middle
            else:
                high = middle
        wish = self._wish(groups, high)
        return wish, self._give_back(groups, wish, cost)

    def _by_loss(self, groups: Sequence[PruneGroup], cost: "BudgetCost") -> ByLoss:
        return ByLoss(
            self.structure,
            groups,
            {g.name: curve(self.scores[g.name], self.in_loss) for g in groups},
            self.rounding,
            cost.limits,
            cost.parts,
            cost.stepped,
            {"memory": self.memory.slopes} if self.memory is not None else {},
        )

    def _wish(self, groups: Sequence[PruneGroup], ratio: float) -> Wish:
        if self.scope == "global":
            ranks = {state.names[0]: len(state.shape) for state in self.structure.states}
            return across(groups, self.scores, ratio, self.rounding, ranks)
        return uniform(groups, {g.name: ratio for g in groups}, self.rounding)

    def _repaired(self, wish: Wish) -> dict[str, int]:
        return self.structure.couplings.repair(wish.kept, wish.choices)

    def _selection(self, kept: Mapping[str, int]) -> Selection:
        return {
            group.name: lowest(self.scores[group.name], len(group) - kept[group.name])
            for group in self.structure.groups
            if kept[group.name] < len(group)
        }

    def _choice(self, wish: Wish) -> Choice:
        return self._told(self._repaired(wish), self._notes(wish))

    def _told(self, kept: Mapping[str, int], notes: tuple[str, ...]) -> Choice:
        return Choice(self._selection(kept), (*notes, *self.remarks))

    def _give_back(self, groups: Sequence[PruneGroup], wish: Wish, cost: "BudgetCost") -> dict[str, int]:
        """One more step of units to each group in turn, round after round, as long as the budget holds."""
        kept = self._repaired(wish)
        for _ in range(GIVING):
            before = kept
            for group in groups:
                more = min(len(group), kept[group.name] + self.rounding.step(len(group), group.granularity))
                if kept[group.name] == len(group):
                    continue
                trial = self._repaired(Wish({**kept, group.name: more}, wish.choices))
                if cost.excess(self._selection(trial)) <= 1:
                    kept = trial
            if kept == before:
                break
        return kept

    def _notes(self, wish: Wish) -> tuple[str, ...]:
        """Groups that keep another count than wished for, and why."""
        kept = self._repaired(wish)
        sizes = {g.name: len(g) for g in self.structure.groups}
        kinds = {g.name: g.granularity for g in self.structure.groups}
        notes = []
        for names in self.structure.couplings.together():
            excluded = [f"{n} ({kinds[n]})" for n in names if n not in wish.choices]
            moved = [n for n in names if n in wish.kept and kept[n] != wish.kept[n]]
            for name in moved:
                stays = f"{name}: {kept[name]} of {sizes[name]} units stay, not {wish.kept[name]}"
                others = [n for n in names if n != name]
                why = f"its count is tied to {_few(others)}" if others else "the code needs as many"
                if kept[name] == sizes[name] and excluded:
                    why += f", of which these options keep whole {_few(excluded)}"
                notes.append(f"{stays}: {why}")
        return tuple(notes)


def _few(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


class BudgetCost:
    """How far a selection is from a budget on MACs, parameters and bytes of weights; on milliseconds and memory, where
    there is what tells them.
    """

    def __init__(
        self,
        structure: Structure,
        budget: Budget,
        table: LatencyTable | None = None,
        memory: MemoryGauge | None = None,
    ) -> None:
        self._structure, self.table, self.memory = structure, table, memory
        self._model = CostModel(structure)
        full = {limit.metric: self._figure(limit.metric, {}) for limit in budget.limits}
        self.limits = {limit.metric: limit.absolute(full[limit.metric]) for limit in budget.limits}
        self._full = full

    @property
    def parts(self) -> dict[str, Sequence[Priced]]:
        """What `Prices` cannot know by itself."""
        timed: dict[str, Sequence[Priced]] = {"latency": self.table.parts} if self.table is not None else {}
        return {**timed, **({"memory": self.memory.parts} if self.memory is not None else {})}

    @property
    def stepped(self) -> frozenset[str]:
        """The metrics whose parts are no polynomials of widths."""
        timed = {"latency"} if self.table is not None and self.table.stepped else set[str]()
        return frozenset(timed | ({"memory"} if self.memory is not None else set()))

    def figures(self, selection: Selection) -> dict[str, float]:
        return {metric: self._figure(metric, selection) for metric in self.limits}

    def macs(self, selection: Selection) -> int:
        return self._model.macs(self._structure.gone(selection))

    def excess(self, selection: Selection) -> float:
        """Largest figure / limit; the budget holds at 1 or less."""
        return max(value / self.limits[metric] for metric, value in self.figures(selection).items())

    def shortfall(self, selection: Selection) -> BudgetError:
        """What a budget that even this selection misses is refused with: every metric that is in the way."""
        shares = {m: value / self.limits[m] for m, value in self.figures(selection).items()}
        missed = {m: value for m, value in self.figures(selection).items() if shares[m] > 1}
        told = [
            f"{m}<={plain_figure(m, self.limits[m])} cannot be met: {nearest_told(m, v, self._measured(m))}"
            for m, v in missed.items()
        ]
        fine = [m for m in shares if m not in missed]
        if fine:
            told.append(f"what is asked of {', '.join(fine)} is in reach")
        metric = max(missed, key=shares.__getitem__)
        return BudgetError("; ".join(told), nearest=float(missed[metric]), metric=metric, missed=missed)

    def _measured(self, metric: str) -> float | None:
        """The whole network's figure, None where it is only predicted: limits are shares of what was measured."""
        return None if metric == "latency" else self._full[metric]

    def _figure(self, metric: str, selection: Selection) -> float:
        kept = {g.name: len(g) - len(selection.get(g.name, ())) for g in self._structure.groups}
        if metric == "latency" and self.table is not None:
            return self.table.milliseconds(kept)
        if metric == "memory" and self.memory is not None:
            return self.memory.predicted(kept)
        if metric not in ("macs", "params", "size"):
            raise UsageError(f"nothing here tells {metric}: this search is one of macs, params and size")
        return getattr(self._model, metric)(self._structure.gone(selection))


def nearest_told(metric: str, reached: float, full: float | None) -> str:
    """
    >>> nearest_told("macs", 1001, 2000)
    'the nearest that can is macs<=1001 (0.501x)'
    >>> nearest_told("latency", 3.14159, None)
    'the nearest that can is latency<=3.15ms'
    """
    share = "" if full is None else f" ({math.ceil(reached / full * 1000) / 1000:g}x)"
    reached = math.ceil(reached * 100) / 100 if metric == "latency" else reached
    return f"the nearest that can is {metric}<={plain_figure(metric, reached)}{share}"


def plain_figure(metric: str, value: float) -> str:
    """A figure as a budget writes it, no less than it is.

    >>> plain_figure("size", 46796608), plain_figure("memory", 20500)
    ('46.797MB', '20.5KB')
    """
    if metric == "latency":
        return f"{value:.4g}ms"
    if metric in ("size", "memory"):
        scale, unit = (1e6, "MB") if value >= 1e6 else (1e3, "KB")
        return f"{math.ceil(value / scale * 1000) / 1000:g}{unit}"
    return f"{value:.0f}"
