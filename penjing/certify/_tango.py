"""Paired non-inferiority of two accuracies: Tango's score test, with a critical value whose size is exact.

Of n examples, b are right in the reference alone and c in the candidate alone. The hypothesis to be refuted is that the
candidate is worse by the margin m or more: p_b - p_c >= m.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from penjing.certify._normal import normal_quantile

SAFE = 0.005  # of alpha: what is kept back, as the worst disagreement is sought on a grid
DOUBT = 0.001  # the confidence set of the disagreement is of 1 - DOUBT
STEP, WIDER = 0.25, 0.5  # standard deviations between the shares tried, for few examples and for many
MANY = 2000
TIED = 1e-12  # values of T that are nearer are one
HIGHEST = 0.5  # T above is accepted by nobody
PRECISE = 1e-3  # of a share of examples
MOST = 10**6  # examples that are asked for
EXACT = 20_000  # examples up to which the forecast is by exact critical values
WIDE = 7.0  # standard deviations to either side that are summed over


def score(b: Any, c: Any, n: int, margin: float) -> Any:
    """Tango's T of counts b and c, which broadcast: about normal where p_b - p_c = m, the lower the less the candidate
    loses. (Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17, 1998, equations 9 to 12; q is the constrained estimate of p_c.)

    >>> round(float(score(0, 0, 268, 0.01)), 3)
    -1.645
    """
    b, c = np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    first = 2.0 * n
    second = -b - c + (2 * n - b + c) * margin
    third = -c * margin * (1 - margin)
    q = (np.sqrt(second * second - 4 * first * third) - second) / (2 * first)
    spread = np.sqrt(n * (2 * np.maximum(q, 0.0) + margin * (1 - margin)))
    return np.divide(b - c - n * margin, spread, out=np.zeros(spread.shape), where=spread > 0)


def critical_values(
    n: int, margin: float, alpha: float = 0.05, *, low: int = 0, high: int | None = None
) -> np.ndarray:
    """By the number of examples the two disagree on, b + c: the largest z at which T <= z accepts a candidate that is
    worse by the margin with a probability of at most alpha; float64 [n + 1], -inf outside of b + c = low ... high.

    That holds exactly, whatever share of examples the two disagree on: probabilities are sums over all b and c, the
    worst is taken over the shares that the disagreement seen leaves possible, at a confidence of 99.9% which alpha
    pays for (Berger & Boos, "P values maximized over a confidence set for the nuisance parameter", JASA 89, 1994).
    The plain normal quantile does not keep its promise: at n = 268 and m = 0.01 it accepts in 6.8%.
    """
    high = n if high is None else high
    found = np.full(n + 1, np.inf)
    for share, first, last in _possible(n, margin, low, high):
        found[first : last + 1] = np.minimum(found[first : last + 1], _largest(n, margin, share, alpha))
    found[:low], found[high + 1 :] = -np.inf, -np.inf
    return found


def harm(b: int, c: int, n: int, margin: float) -> float:
    """The p-value of "the candidate is worse by no more than the margin": how likely T is as large as it is, or larger,
    where it is worse by just that; exact, over the disagreements that b + c leaves possible (see `critical_values`).
    """
    seen = float(score(b, c, n, margin)) - TIED
    if b - c <= n * margin:
        return 1.0
    worst = 0.0
    for share, _, _ in _possible(n, margin, b + c, b + c):
        p_b, p_c = _parted(share, margin)
        law = _law(n, margin, p_b, p_c, lambda t: t >= seen)
        worst = max(worst, sum(float(mass.sum()) for _, mass, _, _ in law))
    return min(1.0, worst + DOUBT)


def borne(n: int, margin: float, alpha: float = 0.05, wanted: float = 0.8) -> float | None:
    """The largest share of examples that the two may disagree on for an equally good candidate to be certified with the
    power `wanted`; None where none is small enough. By the normal quantile in place of the exact critical values.
    """
    z = normal_quantile(alpha)

    def enough(share: float) -> bool:
        return accepts(n, margin, z, share / 2, share / 2) >= wanted

    low, high = 0.0, 1.0
    if not enough(low):
        return None
    while high - low > PRECISE:
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


def _possible(n: int, margin: float, low: int, high: int) -> Iterator[tuple[float, int, int]]:
    """Shares of examples disagreed on, close by each other, that leave counts low ... high possible, each with the
    counts that it, or one between it and the next, leaves possible.
    """
    bands = _bands(n, margin)
    for i, (share, first, last) in enumerate(bands):
        first = 0 if i == 0 else min(first, bands[i - 1][1])
        last = n if i == len(bands) - 1 else max(last, bands[i + 1][2])
        if first <= high and last >= low:
            yield share, first, last


@lru_cache(maxsize=64)
def _bands(n: int, margin: float) -> tuple[tuple[float, int, int], ...]:
    """Shares of examples disagreed on, each with the counts that it leaves likely."""
    start, step = math.asin(math.sqrt(margin)), (STEP if n <= MANY else WIDER) / (2 * math.sqrt(n))
    places = np.arange(start, math.pi / 2 + step, step).clip(max=math.pi / 2)
    shares = [max(margin, math.sin(place) ** 2) for place in places.tolist()]
    return tuple((share, *_likely(n, share)) for share in shares)


def _parted(share: float, margin: float) -> tuple[float, float]:
    """p_b and p_c of a candidate that is worse by the margin."""
    return (share + margin) / 2, (share - margin) / 2


def accepts(n: int, margin: float, z: Any, p_b: float, p_c: float) -> float:
    """The probability of T <= z, by exact summation; `z` is a number, or one by b + c."""
    by_sum = np.broadcast_to(np.asarray(z, dtype=np.float64), n + 1)
    return sum(float(mass[t <= by_sum[b + c]].sum()) for t, mass, b, c in _law(n, margin, p_b, p_c))


def power(n: int, margin: float, discordance: float, alpha: float = 0.05, difference: float = 0.0) -> float:
    """How likely a candidate that loses `difference` (0: exactly as good) is certified, where the two disagree on that
    share of examples; by exact summation.
    """
    p_b, p_c = (discordance + difference) / 2, (discordance - difference) / 2
    sums = _around(n, discordance)
    z = critical_values(n, margin, alpha, low=int(sums[0]), high=int(sums[-1]))
    return min(1.0, accepts(n, margin, z, p_b, p_c))


def examples_needed(
    margin: float,
    discordance: float,
    alpha: float = 0.05,
    wanted: float = 0.8,
    most: int = MOST,
    more_than: int = 0,
) -> int | None:
    """The fewest examples, to 2%, and more than `more_than`, at which the power is `wanted`; None where more than
    `most` would be.

    Above 20,000 by the normal quantile in place of the exact critical values, which differ less the more examples
    there are; up to there the power of as many examples is `wanted` or more.
    """
    z = normal_quantile(alpha)
    low, high = more_than, max(16, more_than + 1, math.ceil(z * z * (1 - margin) / max(margin, 1 / most)))
    if high > most:
        return None

    def enough(n: int) -> bool:
        return accepts(n, margin, z, discordance / 2, discordance / 2) >= wanted

    while not enough(high):
        low, high = high, 2 * high
        if low > most:
            return None
    while high > 1.02 * low + 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    while high <= EXACT and power(high, margin, discordance, alpha) < wanted:
        high = math.ceil(1.02 * high)
    return high


def _likely(n: int, share: float) -> tuple[int, int]:
    """The counts of Binomial(n, share) that leave DOUBT / 2 to either side."""
    counts = _around(n, share)
    logs = _log_factorials(n)
    mass = np.exp(
        logs[n] - logs[counts] - logs[n - counts] + _times(counts, share) + _times(n - counts, 1 - share)
    )
    below, above = np.cumsum(mass), np.cumsum(mass[::-1])
    low = int(counts[np.searchsorted(below, DOUBT / 2)])
    high = int(counts[::-1][np.searchsorted(above, DOUBT / 2)])
    return low, high


@lru_cache(maxsize=4096)
def _largest(n: int, margin: float, share: float, alpha: float) -> float:
    """The largest z at which T <= z has a probability of at most alpha, less what DOUBT costs, where the two disagree
    on that share and the candidate is worse by the margin.
    """
    allowed = (alpha - DOUBT) * (1 - SAFE)
    parts = list(_law(n, margin, *_parted(share, margin)))
    t, mass = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    if not len(t):
        return HIGHEST
    order = np.argsort(t, kind="stable")
    t, below = t[order], np.cumsum(mass[order])
    ends = np.flatnonzero(np.diff(t) > TIED)  # the last of equal values
    inside = ends[below[ends] <= allowed]
    if not len(inside):
        return float(t[0]) - TIED
    at = int(inside[-1])
    return float(t[at] + t[at + 1]) / 2


def _low(t: np.ndarray) -> np.ndarray:
    """What a candidate that may be certified has."""
    return t < HIGHEST


def _law(
    n: int, margin: float, p_b: float, p_c: float, wanted: Callable[[np.ndarray], np.ndarray] = _low
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """T, its probability, b and c, in parts: where the probability is not negligible, and T is `wanted`."""
    logs = _log_factorials(n)
    b, all_c, rest = _around(n, p_b), _around(n, p_c), max(1e-300, 1 - p_b - p_c)
    for c in np.array_split(all_c, max(1, len(b) * len(all_c) // 400_000)):
        left = n - b[None, :] - c[:, None]
        mass = logs[n] - logs[b][None, :] - logs[c][:, None] - logs[np.maximum(left, 0)]
        mass = mass + _times(b, p_b)[None, :] + _times(c, p_c)[:, None] + left * math.log(rest)
        t = score(b[None, :], c[:, None], n, margin)
        chosen = (left >= 0) & wanted(t) & (mass > -60)
        at_c, at_b = np.nonzero(chosen)
        yield t[chosen], np.exp(mass[chosen]), b[at_b], c[at_c]


def _times(count: np.ndarray, p: float) -> np.ndarray:
    """count * log p, 0 where there is nothing to count."""
    return np.where(count > 0, count * math.log(max(p, 1e-300)), 0.0)


def _around(n: int, p: float) -> np.ndarray:
    """The counts that are likely at all."""
    if p <= 0:
        return np.zeros(1, dtype=np.int64)
    mean, wide = n * p, WIDE * math.sqrt(n * p * max(0.0, 1 - p)) + 2 * WIDE
    return np.arange(max(0, math.floor(mean - wide)), min(n, math.ceil(mean + wide)) + 1)


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])
