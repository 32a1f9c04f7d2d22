"""The normal law."""

import math

HALVINGS = 80


def normal_cdf(z: float) -> float:
    """P(N <= z).

    >>> round(normal_cdf(1.645), 4)
    0.95
    """
    return 0.5 * math.erfc(-z / math.sqrt(2))


def normal_quantile(p: float) -> float:
    """z with P(N <= z) = p, by bisection.

    >>> round(normal_quantile(0.05), 3)
    -1.645
    """
    low, high = -40.0, 40.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if normal_cdf(middle) < p else (low, middle)
    return (low + high) / 2
