"""Successive halving: all tried a little, the best a little longer, and one is left."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

CHEAPER = 0.95  # of the cost: what is worth to be called cheaper


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a try gave: of two scores the larger is better, of two equal ones that with the smaller loss."""

    score: float
    loss: float

    @property
    def order(self) -> tuple[float, float]:
        """NaN is worse than anything."""
        score = self.score if math.isfinite(self.score) else -math.inf
        return score, -self.loss if math.isfinite(self.loss) else -math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a candidate came: its marks by rung, and why it went no further ("" for the one that is chosen)."""

    name: str
    marks: tuple[Mark, ...] = ()
    out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferred:
    """The one that is taken, the one that did best, and why the one and not the other ("" where they are the same)."""

    name: str
    best: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who is taken among the last.

    `cost` is what a candidate needs (a share of the whole network); `noise` the standard error of the difference of two
    candidates' scores at a rung, over the same examples; `margin` the most that may be given away for less cost.
    """

    cost: Callable[[str], float]
    noise: Callable[[str, str, int], float]
    margin: float | None = None

    def tolerance(self, best: str, other: str, rung: int) -> float:
        noise = self.noise(best, other, rung)
        return noise if self.margin is None else min(noise, self.margin)

    def prefer(self, marks: Mapping[str, Mark], rung: int) -> Preferred:
        """Of those that are no further behind the best than could be noise the cheapest, of equally cheap ones the
        first: `marks` come in the order of preference (Breiman et al., CART, 1984, section 3.4.3: one standard error).
        """
        best = max(marks, key=lambda name: marks[name].order)
        top = marks[best].score
        tied = [
            name
            for name in marks
            if name == best or 0 <= top - marks[name].score <= self.tolerance(best, name, rung)
        ]
        costs = {name: self.cost(name) for name in tied}
        least = min(costs.values())
        taken = next(name for name in tied if costs[name] * CHEAPER <= least)
        if taken == best:
            return Preferred(name=best, best=best)
        why = "costs less" if costs[taken] < CHEAPER * costs[best] else "is the simpler choice"
        return Preferred(name=taken, best=best, why=why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved:
    """Where everybody stood at the end; `rung` is the last one that counted."""

    standings: tuple[Standing, ...]
    preferred: Preferred
    rung: int

    @property
    def chosen(self) -> str:
        return self.preferred.name


def halve(
    names: Sequence[str],
    attempt: Callable[[str, int], Mark | str],
    keep: Sequence[int],
    judge: Judge,
    *,
    fits: Callable[[str, int], bool] = lambda name, rung: True,
) -> Halved:
    """One of `names`, which come in the order of preference.

    `attempt(name, rung)` tries a candidate, at rung 0 untrained and longer at every rung, and gives its mark or says
    why it cannot be. All are tried at rung 0, the best keep[r - 1] of those go on to rung r (Karnin, Koren & Somekh,
    "Almost optimal exploration in multi-armed bandits", ICML 2013), as long as more than one is left. `fits` says
    whether there is time for a try; the first candidate that can be is tried at rung 0 in any case. A rung in which
    time allowed fewer than two tries does not count. Raises `ValueError` where no candidate can be.
    """
    out: dict[str, str] = {}
    marks: dict[str, list[Mark]] = {name: [] for name in names}
    entrants, rung, last = list(names), 0, 0
    while True:
        tried, late = _tried(entrants, rung, attempt, fits, marks, out)
        if not tried and not late:
            told = "; ".join(f"{name}: {out[name]}" for name in names)
            raise ValueError(f"none of the candidates can be: {told}")
        if rung and late and len(tried) < 2:
            entrants = [name for name in entrants if name in (*tried, *late)]
            for name in entrants:
                out.pop(name, None)
                del marks[name][rung:]
            break
        last = rung
        if rung == len(keep) or len(tried) == 1:
            entrants = tried
            break
        ranked = sorted(tried, key=lambda name: marks[name][-1].order, reverse=True)
        entrants = [name for name in tried if name in ranked[: keep[rung]]]
        out |= {name: _behind(rung, len(entrants)) for name in tried if name not in entrants}
        rung += 1
        if len(entrants) == 1:
            break
    preferred = judge.prefer({name: marks[name][last] for name in entrants}, last)
    out |= {name: f"behind {preferred.name}" for name in entrants if name != preferred.name}
    if preferred.name != preferred.best:
        out[preferred.best] = f"ahead of {preferred.name} by no more than could be noise"
    standings = tuple(Standing(name=name, marks=tuple(marks[name]), out=out.get(name, "")) for name in names)
    return Halved(standings=standings, preferred=preferred, rung=last)


def _tried(
    entrants: Sequence[str],
    rung: int,
    attempt: Callable[[str, int], Mark | str],
    fits: Callable[[str, int], bool],
    marks: dict[str, list[Mark]],
    out: dict[str, str],
) -> tuple[list[str], list[str]]:
    """Those that were tried at `rung` and can be, and those that there was no time for; reasons go into `out`."""
    tried: list[str] = []
    late: list[str] = []
    for name in entrants:
        if not fits(name, rung) and (tried or rung):
            out[name] = "no time was left" + (" to try it" if rung == 0 else " to train it further")
            late.append(name)
            continue
        found = attempt(name, rung)
        if isinstance(found, str):
            out[name] = found
            continue
        marks[name].append(found)
        tried.append(name)
    return tried, late


def _behind(rung: int, kept: int) -> str:
    best = "the best" if kept == 1 else f"the best {kept}"
    return f"not among {best} {'before training' if rung == 0 else f'of rung {rung}'}"
