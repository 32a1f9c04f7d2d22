"""Milliseconds promised, measured: widths by the table, then the network itself, until the two agree."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from statistics import median
from typing import Any

from torch import nn

from penjing.core import BudgetError
from penjing.core._plan import Plan
from penjing.measure import Timekeeper
from penjing.search._latency_table import LatencyTable

NEAR = 0.96  # of the limit: what a network must reach to have used its budget
AIM = 0.98  # of the limit: where the search aims, so that noise does not break it
ROUNDS = 8
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
    """A proven network, what the table says that it takes, and whether the options allow no narrower one."""

    slim: nn.Module
    plan: Plan
    predicted: float
    narrowest: bool = False


def to_latency(
    made: Callable[[LatencyTable], Candidate],
    table: LatencyTable,
    keeper: Timekeeper,
    limit: float,
    *,
    others: bool = False,
    cut_anyway: bool = False,
) -> tuple[nn.Module, Plan, Aimed]:
    """The network that `made` gives by a table whose scale measurements have set right, at most eight times.

    `limit` is in the reference's milliseconds; `others` tells whether `made` minds other limits too, `cut_anyway` that
    the whole network does not hold them. What is returned is the slowest network measured within the limit. Raises
    `BudgetError` where none was.
    """
    tries: list[tuple[float, float]] = []
    best: tuple[float, Candidate] | None = None
    least = (
        0.0 if cut_anyway else AIM * limit / table.milliseconds({})
    )  # where the whole one would do, which is slow
    factor: float | None = max(1.0, STEP * least)
    factors: list[float] = []
    while factor is not None and len(tries) < ROUNDS:
        found = made(table.scaled(factor / AIM))
        measured = _measured(found.slim, keeper, limit)
        tries.append((found.predicted * AIM, measured))
        factors.append(factor)
        if measured <= limit and (best is None or measured > best[0]):
            best = measured, found
        others_bind = others and max(measured, found.predicted) < NEAR * limit
        if NEAR * limit <= measured <= limit or others_bind or (found.narrowest and measured > limit):
            break
        right = factor * measured / (found.predicted * AIM)
        factor = _next([least, *factors], [True, *(m > limit for _, m in tries)], right)
    if best is None:
        nearest, whole = min(measured for _, measured in tries), keeper.milliseconds
        raise BudgetError(
            f"latency<={limit:.4g}ms cannot be met: the fastest network tried took {nearest:.4g}ms, measured, the "
            f"whole one {whole:.4g}ms: the nearest that can is about latency<={ceil(nearest / whole * 1000) / 1000:g}x",
            nearest=nearest,
            metric="latency",
        )
    aimed = Aimed(
        limit=limit,
        reference=keeper.milliseconds,
        measured=best[0],
        tries=tuple(tries),
        table_error=table.error,
        unexplained=table.unexplained,
        networks=len(table.observations),
        reused=table.reused,
    )
    return best[1].slim, best[1].plan, aimed


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
