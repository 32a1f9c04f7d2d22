"""Widths under a budget: where a MAC saved costs least loss, across all groups.

Minimise the sum over groups of e_g(width) subject to cost(widths) <= limit, by Lagrange multipliers: at a price per MAC
every group in turn takes the width that is cheapest given its neighbours' (MACs are products of neighbouring widths),
and the price rises until the budget holds, so that the widths follow the path from the whole network down.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.core._groups import PruneGroup
from penjing.search._prices import Priced, Prices
from penjing.search._select import Rounding, floor_choices
from penjing.structure import Structure

RISE = 1.2  # of the price from one round to the next
CHEAPEST = 1e-7  # the first price, as a share of the loss at stake per budget
ROUNDS = 400
HALVINGS = 12
EXCHANGES = 8  # of the groups that would gain most by a wider option, tried against every other
SHARES = np.linspace(1, 0, 33)[1:]  # of what may go, for groups whose counts are tied

Kept = dict[int, int]


def curve(scores: np.ndarray, in_loss: str) -> np.ndarray:
    """The loss that the k lowest units cost together, for k = 0 ... n.

    `in_loss` says what a score is: "additive" (a unit's own loss) or "cumulative" (the loss once it and all lower go).
    """
    ordered = np.sort(scores)
    lost = np.cumsum(ordered) if in_loss == "additive" else np.maximum.accumulate(ordered)
    return np.concatenate([[0.0], lost])


@dataclass(frozen=True, slots=True)
class _Mover:
    """Groups that move together, the counts they may take (widest first), and the loss at each.

    Costs are asked for at the options `points`; `basis` @ those are the costs of all options.
    """

    groups: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]
    losses: np.ndarray
    points: tuple[int, ...]
    basis: np.ndarray


class ByLoss:
    """Kept counts for limits on MACs, parameters, bytes and what `parts` holds the parts of, from loss curves alone.

    `stepped` are the metrics whose parts are no polynomials of widths, and take arrays of them. `slopes` are parts to
    price by in place of those of a metric that has kinks, such as the most of several sums.
    """

    def __init__(
        self,
        structure: Structure,
        groups: Sequence[PruneGroup],
        curves: Mapping[str, np.ndarray],
        rounding: Rounding,
        limits: Mapping[str, float],
        parts: Mapping[str, Sequence[Priced]] | None = None,
        stepped: frozenset[str] = frozenset(),
        slopes: Mapping[str, Sequence[Priced]] | None = None,
    ) -> None:
        self._structure, self._limits = structure, dict(limits)
        self._prices = Prices(structure, tuple(limits), parts)
        self._slopes = (
            Prices(structure, tuple(limits), {**(parts or {}), **slopes}) if slopes else self._prices
        )
        self._stepped = stepped
        self._numbers = {g.name: i for i, g in enumerate(structure.groups)}
        self._curves = {self._numbers[g.name]: curves[g.name] for g in groups}
        self.choices = {g.name: floor_choices(g, rounding) for g in groups}
        self._movers = self._all_movers(groups)
        self._whole: Kept = {i: len(g) for i, g in enumerate(structure.groups)}

    def run(self, holds: Callable[[Mapping[str, int]], bool]) -> dict[str, int]:
        """Counts by group name at which `holds` says that the budget does, as near below it as the options allow."""
        last, below = self._descend(holds)
        kept = self._fill(below if last is None else self._between(last, below, holds), holds)
        return self._named(self._exchange(kept, holds))

    def narrowest(self) -> dict[str, int]:
        """The least that the options allow."""
        return self._named(self._whole | {g: n for m in self._movers for g, n in _at(m, -1)})

    def _descend(self, holds: Callable[[Mapping[str, int]], bool]) -> tuple["_Priced | None", Kept]:
        """The last prices at which the budget does not hold, and the first widths at which it does."""
        at_stake = sum(float(m.losses[-1]) for m in self._movers) or 1.0
        now = _Priced(dict(self._whole), dict.fromkeys(self._limits, CHEAPEST * at_stake))
        for turn in range(ROUNDS):
            kept = self._settled(now.kept, now.prices, turn)
            if holds(self._named(kept)):
                return now, kept
            over = [m for m, v in self._limits.items() if self._prices.total(m, kept) > v]
            rising = {m: p * RISE if m in over or not over else p for m, p in now.prices.items()}
            now = _Priced(kept, rising)
        return None, self._whole | {g: n for m in self._movers for g, n in _at(m, -1)}

    def _between(self, start: "_Priced", below: Kept, holds: Callable[[Mapping[str, int]], bool]) -> Kept:
        """The budget's own price, by halving the last step, each time from the last widths that did not hold."""
        low, high = 1 / RISE, 1.0
        for turn in range(HALVINGS):
            middle = (low + high) / 2
            kept = self._settled(start.kept, {m: p * middle for m, p in start.prices.items()}, turn)
            if holds(self._named(kept)):
                below, high = kept, middle
            else:
                low = middle
        return below

    def _settled(self, kept: Kept, prices: Mapping[str, float], turn: int) -> Kept:
        """One round: every mover takes its best option, forwards and backwards in turn."""
        kept = dict(kept)
        for mover in self._movers if turn % 2 else self._movers[::-1]:
            paid = mover.losses + sum(
                price / self._limits[m] * self._costs(mover, m, kept) for m, price in prices.items()
            )
            kept.update(_at(mover, int(np.argmin(paid))))
        return kept

    def _costs(self, mover: _Mover, metric: str, kept: Kept) -> np.ndarray:
        """What each option costs in `metric`, given everybody else."""
        if metric in self._stepped:
            counts = {g: np.array([o[i] for o in mover.options]) for i, g in enumerate(mover.groups)}
            found = self._slopes.share(metric, mover.groups, {**kept, **counts})
            return np.broadcast_to(np.asarray(found, dtype=np.float64), len(mover.options))
        found = [self._slopes.share(metric, mover.groups, kept | dict(_at(mover, i))) for i in mover.points]
        return mover.basis @ np.array(found)

    def _fill(self, kept: Kept, holds: Callable[[Mapping[str, int]], bool]) -> Kept:
        """Gives units back where they save most loss per cost, as long as the budget holds."""
        able = list(self._movers)
        while able:
            room = self._room(kept)
            gains = [self._gain(mover, kept, room) for mover in able]
            best = int(np.argmax(gains))
            if gains[best] < 0:
                break
            wider = kept | dict(_at(able[best], _place(able[best], kept) - 1))
            if holds(self._named(wider)):
                kept = wider
            else:
                able.pop(best)
        return kept

    def _exchange(self, kept: Kept, holds: Callable[[Mapping[str, int]], bool]) -> Kept:
        """One option narrower here for one wider there, where that loses less."""
        endless = dict.fromkeys(self._limits, float("inf"))
        gains, room = [self._gain(mover, kept, endless) for mover in self._movers], self._room(kept)
        wider = [self._movers[i] for i in np.argsort(gains)[::-1][:EXCHANGES] if gains[i] >= 0]
        for mover in self._movers:
            for other in wider:
                trial = self._swapped(mover, other, kept, room)
                if trial is not None and holds(self._named(trial)):
                    kept, room = trial, self._room(trial)
        return kept

    def _swapped(self, narrower: _Mover, wider: _Mover, kept: Kept, room: Mapping[str, float]) -> Kept | None:
        """Both moved by one option, if that loses less and, by the prices, fits."""
        down, up = _place(narrower, kept) + 1, _place(wider, kept) - 1
        if narrower is wider or down == len(narrower.options) or up < 0:
            return None
        lost, saved = (m.losses[i + 1] - m.losses[i] for m, i in ((narrower, down - 1), (wider, up)))
        trial = kept | dict(_at(narrower, down)) | dict(_at(wider, up))
        fits = lost < saved and all(
            self._more(m, (*narrower.groups, *wider.groups), kept, trial) <= left for m, left in room.items()
        )
        return trial if fits else None

    def _room(self, kept: Kept) -> dict[str, float]:
        return {m: v - self._prices.total(m, kept) for m, v in self._limits.items()}

    def _more(self, metric: str, groups: Sequence[int], before: Kept, after: Kept) -> float:
        return self._prices.share(metric, groups, after) - self._prices.share(metric, groups, before)

    def _gain(self, mover: _Mover, kept: Kept, room: Mapping[str, float]) -> float:
        """Loss saved per share of the tightest limit by one option wider; -1 where there is none that fits."""
        place = _place(mover, kept)
        if place == 0:
            return -1.0
        wider, share = kept | dict(_at(mover, place - 1)), 0.0
        for metric, left in room.items():
            more = self._more(metric, mover.groups, kept, wider)
            if more > left:
                return -1.0
            share = max(share, more / self._limits[metric])
        return float(mover.losses[place] - mover.losses[place - 1]) / max(share, 1e-12)

    def _named(self, kept: Mapping[int, int]) -> dict[str, int]:
        return {g.name: kept[i] for i, g in enumerate(self._structure.groups)}

    def _all_movers(self, groups: Sequence[PruneGroup]) -> list[_Mover]:
        able = {g.name for g in groups}
        tied = [[n for n in names if n in able] for names in self._structure.couplings.together()]
        inside = {name for names in tied for name in names}
        movers = [self._mover([g.name], [(int(n),) for n in self.choices[g.name][::-1]]) for g in groups
                  if g.name not in inside]  # fmt: skip
        return movers + [self._mover(names, self._tied_options(names)) for names in tied if names]

    def _tied_options(self, names: Sequence[str]) -> list[tuple[int, ...]]:
        """Counts that satisfy the ties, near even shares of what may go."""
        found = [tuple(int(self.choices[n][-1]) for n in names)]
        for share in SHARES:
            wish = {n: int(self.choices[n][round(share * (len(self.choices[n]) - 1))]) for n in names}
            kept = self._structure.couplings.repair(wish, {n: self.choices[n] for n in names})
            counts = tuple(kept[n] for n in names)
            if all(c <= last for c, last in zip(counts, found[-1], strict=True)) and counts != found[-1]:
                found.append(counts)
        return found

    def _mover(self, names: Sequence[str], options: Sequence[tuple[int, ...]]) -> _Mover:
        groups = tuple(self._numbers[n] for n in names)
        curves = [self._curves[g] for g in groups]
        losses = [sum(c[len(c) - 1 - n] for c, n in zip(curves, o, strict=True)) for o in options]
        return _Mover(groups, tuple(options), np.array(losses), *_through(options))


@dataclass(frozen=True, slots=True)
class _Priced:
    """Widths, and the prices that come next."""

    kept: Kept
    prices: dict[str, float]


def _through(options: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], np.ndarray]:
    """Options that tell the cost of all: three for one group, whose layers cost its width or the square of it."""
    last = len(options) - 1
    if len(options[0]) > 1 or last < 3:
        return tuple(range(last + 1)), np.eye(last + 1)
    points = (0, last // 2, last)
    width = np.array([sum(o) for o in options], dtype=np.float64) / sum(options[0])
    return points, np.vander(width, 3) @ np.linalg.inv(np.vander(width[list(points)], 3))


def _at(mover: _Mover, option: int) -> list[tuple[int, int]]:
    return list(zip(mover.groups, mover.options[option], strict=True))


def _place(mover: _Mover, kept: Mapping[int, int]) -> int:
    return mover.options.index(tuple(kept[g] for g in mover.groups))
