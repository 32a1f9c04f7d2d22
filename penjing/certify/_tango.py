"""Paired non-inferiority of two accuracies: Tango's score test, with a critical value whose size is exact.

Of n examples, b are right in the reference alone and c in the candidate alone. The hypothesis to be refuted is that the
candidate is worse by the margin m or more: p_b - p_c >= m.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

SAFE = 1e-4  # of alpha: what is kept back, as the worst discordance is sought on a grid
GRID, COARSE = 160, 48  # discordances tried, for few examples and for many
MANY = 2000
REFINED = 3  # of the worst, looked at more closely
WIDE = 7.0  # standard deviations to either side that are summed over
HALVINGS = 40


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
    return (b - c - n * margin) / spread


@lru_cache(maxsize=256)
def critical_value(n: int, margin: float, alpha: float = 0.05) -> float:
    """The largest z at which T <= z accepts a candidate that is worse by the margin with a probability of at most alpha,
    whatever share of examples the two disagree on; by exact summation over all b and c.

    The plain normal quantile does not keep its promise: at n = 268 and m = 0.01 it accepts in 6.8%.
    """
    most = (1 - margin) / 2
    count = GRID if n <= MANY else COARSE
    places = [most * (step / (count - 1)) ** 2 for step in range(count)]
    allowed = alpha * (1 - SAFE)
    found = {q: _largest(n, margin, q, allowed) for q in places}
    for worst in sorted(found, key=found.__getitem__)[:REFINED]:
        at = places.index(worst)
        low, high = places[max(0, at - 1)], places[min(count - 1, at + 1)]
        found |= {q: _largest(n, margin, q, allowed) for q in np.linspace(low, high, 9)[1:-1].tolist()}
    return min(found.values())


def accepts(n: int, margin: float, z: float, p_b: float, p_c: float) -> float:
    """The probability of T <= z, by exact summation."""
    return sum(float(mass[t <= z].sum()) for t, mass in _law(n, margin, p_b, p_c))


def power(n: int, margin: float, discordance: float, alpha: float = 0.05) -> float:
    """How likely a candidate exactly as good as the reference is certified, if they disagree on that share of examples."""
    z = critical_value(n, margin, alpha)
    return accepts(n, margin, z, discordance / 2, discordance / 2)


def examples_needed(
    margin: float, discordance: float, alpha: float = 0.05, wanted: float = 0.8, most: int = 10**6
) -> int | None:
    """The fewest examples, to 2%, at which the power is `wanted`; None where more than `most` would be.

    By the normal quantile in place of the exact critical value, which differ less the more examples there are.
    """
    z = normal_quantile(alpha)

    def enough(n: int) -> bool:
        return accepts(n, margin, z, discordance / 2, discordance / 2) >= wanted

    low, high = 1, max(16, math.ceil(z * z * (1 - margin) / margin))
    while not enough(high):
        low, high = high, 2 * high
        if low > most:
            return None
    while high > 1.02 * low + 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def normal_quantile(p: float) -> float:
    """z with P(N <= z) = p, by bisection of the error function.

    >>> round(normal_quantile(0.05), 3)
    -1.645
    """
    low, high = -40.0, 40.0
    for _ in range(2 * HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < p else (low, middle)
    return (low + high) / 2


def _largest(n: int, margin: float, q: float, allowed: float) -> float:
    """The largest z at which T <= z has at most the probability `allowed` where p_c = q and p_b = q + m."""
    parts = list(_law(n, margin, q + margin, q))
    t, mass = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    order = np.argsort(t, kind="stable")
    t, below = t[order], np.cumsum(mass[order])
    ends = np.flatnonzero(np.diff(t) > 1e-12)  # the last of equal values
    inside = ends[below[ends] <= allowed]
    if not len(inside):
        return float(t[0]) - 1e-9 if len(t) else -math.inf
    at = int(inside[-1])
    return float(t[at] + min(1e-9, (t[at + 1] - t[at]) / 2))


def _law(n: int, margin: float, p_b: float, p_c: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """T and its probability, counts c by counts c: where the normal law leaves anything, and T is not far above."""
    logs = _log_factorials(n)
    b, rest = _around(n, p_b), max(1e-300, 1 - p_b - p_c)
    for c in np.array_split(_around(n, p_c), max(1, len(b) * len(_around(n, p_c)) // 400_000)):
        left = n - b[None, :] - c[:, None]
        able = left >= 0
        mass = logs[n] - logs[b][None, :] - logs[c][:, None] - logs[np.maximum(left, 0)]
        mass = mass + _times(b, p_b)[None, :] + _times(c, p_c)[:, None] + left * math.log(rest)
        t = score(b[None, :], c[:, None], n, margin)
        chosen = able & (t < 0.5) & (mass > -60)
        yield t[chosen], np.exp(mass[chosen])


def _times(count: np.ndarray, p: float) -> np.ndarray:
    """count * log p, 0 where there is nothing to count."""
    return np.where(count > 0, count * math.log(max(p, 1e-300)), 0.0)


def _around(n: int, p: float) -> np.ndarray:
    """The counts that are likely at all."""
    mean, wide = n * p, WIDE * math.sqrt(n * p * (1 - p)) + 2 * WIDE
    if p <= 0:
        return np.zeros(1, dtype=np.int64)
    return np.arange(max(0, math.floor(mean - wide)), min(n, math.ceil(mean + wide)) + 1)


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])
