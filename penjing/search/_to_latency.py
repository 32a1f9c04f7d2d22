"""Milliseconds promised, measured: widths by the table, then the network itself, until the two agree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, sqrt
from statistics import median
from typing import Any

from torch import nn

from penjing.core import BudgetError
from penjing.core._plan import Plan
from penjing.measure import Timekeeper
from penjing.search._latency_table import LatencyTable

WIDER = 0.1  # of the way to the whole network: the first step
NEAR = 0.96  # of the limit: what a network must reach to have used its budget
AIM = 0.98  # of the limit: where the search aims, so that noise does not break it
ROUNDS = 8
BETWEEN = 12  # networks tried between one that is too slow and one that leaves much of the limit
ALIKE = 1.003  # factors closer than this find the same network
STEP = 1.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Aimed:
    """How a latency was reached, in milliseconds: the limit, the time of the reference, that measured of the network
    which was taken, and what was predicted and measured per try; the table's own error, from how many networks it was
    learnt, how many of them an earlier search had timed, and what became of their file where that is worth a note.
    """

    limit: float
    reference: float
    measured: float
    tries: tuple[tuple[float, float], ...]
    table_error: float
    unexplained: float
    networks: int
    reused: int = 0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "limit_ms": self.limit,
            "reference_ms": self.reference,
            "measured_ms": self.measured,
            "tries": [{"predicted_ms": p, "measured_ms": m} for p, m in self.tries],
            "table_error": self.table_error,
            "unexplained": self.unexplained,
            "networks": self.networks,
            "reused": self.reused,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Candidate:
    """A proven network, what the table says that it takes, whether the options allow no narrower one, and the units
    kept by group name.
    """

    slim: nn.Module
    plan: Plan
    predicted: float
    narrowest: bool = False
    kept: Mapping[str, int] = field(default_factory=dict)


def to_latency(
    made: Callable[[LatencyTable], Candidate],
    table: LatencyTable,
    keeper: Timekeeper,
    limit: float,
    *,
    exactly: Callable[[Mapping[str, int]], Candidate | None] | None = None,
    others: bool = False,
    cut_anyway: bool = False,
) -> tuple[nn.Module, Plan, Aimed]:
    """The network that `made` gives by a table whose scale measurements have set right, at most eight times; where no
    scale uses the limit, networks between the best and one that is too slow, made `exactly` so, at most twelve.

    `limit` is in the reference's milliseconds; `others` tells whether `made` minds other limits too, `cut_anyway` that
    the whole network does not hold them. What is returned is the slowest network measured within the limit. Raises
    `BudgetError` where none was.
    """
    seen = _Seen(keeper, limit)
    least = (
        0.0 if cut_anyway else AIM * limit / table.milliseconds({})
    )  # where the whole one would do, which is slow
    factor: float | None = max(1.0, STEP * least)
    factors: list[float] = []
    while factor is not None and len(factors) < ROUNDS:
        found = made(table.scaled(factor / AIM))
        measured = seen.measure(found, AIM)
        factors.append(factor)
        others_bind = others and max(measured, found.predicted) < NEAR * limit
        if seen.used or others_bind or (found.narrowest and measured > limit):
            break
        right = factor * measured / (found.predicted * AIM)
        factor = _next([least, *factors], [True, *(m > limit for _, m in seen.tries)], right)
    else:
        if exactly is not None:
            _between(seen, {g.name: len(g) for g in table.structure.groups}, exactly)
    if seen.best is None:
        nearest, whole = min(measured for _, measured in seen.tries), keeper.milliseconds
        raise BudgetError(
            f"latency<={limit:.4g}ms cannot be met: the fastest network tried took {nearest:.4g}ms, measured, the "
            f"whole one {whole:.4g}ms: the nearest that can is about latency<={ceil(nearest / whole * 1000) / 1000:g}x",
            nearest=nearest,
            metric="latency",
        )
    aimed = Aimed(
        limit=limit,
        reference=keeper.milliseconds,
        measured=seen.best[0],
        tries=tuple(seen.tries),
        table_error=table.error,
        unexplained=table.unexplained,
        networks=len(table.observations),
        reused=table.reused,
    )
    return seen.best[1].slim, seen.best[1].plan, aimed


@dataclass(slots=True)
class _Seen:
    """The networks measured so far: predicted and measured milliseconds, the slowest within the limit, and the fastest
    beyond it.
    """

    keeper: Timekeeper
    limit: float
    tries: list[tuple[float, float]] = field(default_factory=list)
    best: tuple[float, Candidate] | None = None
    beyond: tuple[float, Candidate] | None = None

    @property
    def used(self) -> bool:
        """Whether a network uses the limit."""
        return self.best is not None and self.best[0] >= NEAR * self.limit

    def measure(self, found: Candidate, aim: float = 1.0) -> float:
        measured = _measured(found.slim, self.keeper, self.limit)
        self.tries.append((found.predicted * aim, measured))
        if measured <= self.limit and (self.best is None or measured > self.best[0]):
            self.best = measured, found
        if measured > self.limit and (self.beyond is None or measured < self.beyond[0]):
            self.beyond = measured, found
        return measured


def _between(
    seen: _Seen, whole: Mapping[str, int], exactly: Callable[[Mapping[str, int]], Candidate | None]
) -> None:
    """Group after group takes the count that it has in the network beyond the limit: how many may is found by halving,
    the one that may not is left out, and so on with those after it. Then all that were not left out are widened towards
    the whole network.

    A kernel that changes its way of computing at one width makes steps in the time that no scale of a table tells.
    """
    if seen.best is None:
        return
    kept = dict(seen.best[1].kept)
    slow = kept if seen.beyond is None else seen.beyond[1].kept
    unlike, left_out = [name for name in kept if kept[name] != slow[name]], set[str]()
    low, high = 0, len(unlike)
    for _ in range(BETWEEN):
        if seen.used or not unlike:
            break
        middle = (low + high + 1) // 2
        found = exactly({**kept, **{name: slow[name] for name in unlike[:middle]}})
        if found is not None and seen.measure(found) <= seen.limit:
            low = middle
        else:
            high = middle - 1
        if low == high:  # of `unlike` the first `low` may, the next one may not
            kept |= {name: slow[name] for name in unlike[:low]}
            left_out.update(unlike[low : low + 1])
            unlike = unlike[low + 1 :]
            low, high = 0, len(unlike)
    _widened(seen, kept, {name: n for name, n in whole.items() if name not in left_out}, exactly)


def _widened(
    seen: _Seen,
    kept: Mapping[str, int],
    whole: Mapping[str, int],
    exactly: Callable[[Mapping[str, int]], Candidate | None],
) -> None:
    """As large a part of the way from `kept` to `whole`, found by halving, as the limit allows."""
    low, high = 0.0, 2 * WIDER
    for _ in range(BETWEEN // 2):
        if seen.used:
            return
        part = (low + high) / 2
        found = exactly(
            {**kept, **{name: int(kept[name] + part * (n - kept[name])) for name, n in whole.items()}}
        )
        if found is not None and seen.measure(found) <= seen.limit:
            low = part
        else:
            high = part


def _next(factors: Sequence[float], over: Sequence[bool], right: float) -> float | None:
    """The table's next factor: what would have been `right` for the last network, unless an earlier one speaks against
    it; then between those whose networks were too slow (one is) and too fast, or beyond all. None where they meet.

    >>> _next([0.8, 1.0], [True, False], 0.9), _next([0.8, 1.0, 0.9], [True, False, True], 1.02)
    (0.9, 0.9486832980505138)
    >>> _next([0.999, 1.0], [True, False], 1.1) is None, _next([1.0, 1.01], [True, True], 1.0)
    (True, 1.0302)
    """
    slowest = max(factor for factor, slow in zip(factors, over, strict=True) if slow)
    fast = [factor for factor, slow in zip(factors, over, strict=True) if not slow]
    if slowest < right < min(fast, default=inf) and _new(right, factors):
        return right
    if not fast:
        return STEP * slowest
    between = sqrt(slowest * min(fast)) if slowest else min(fast) / STEP
    return between if _new(between, factors) else None


def _new(factor: float, factors: Sequence[float]) -> bool:
    return all(max(factor, one) > ALIKE * min(factor, one) for one in factors)


def _measured(slim: nn.Module, keeper: Timekeeper, limit: float) -> float:
    """Milliseconds; the median of three placements where the first is near the limit, as one may have been lucky."""
    first = keeper.time(slim, operators=False).milliseconds
    if not NEAR**2 * limit <= first <= limit / NEAR:
        return first
    return median([first, *(keeper.time(slim, operators=False).milliseconds for _ in range(2))])
