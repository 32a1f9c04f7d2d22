"""The time of one operator as a function of its tensors' sizes, fitted to what was seen at several widths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PADDINGS = (1, 8, 16, 32)  # widths that kernels round up to


@dataclass(frozen=True, slots=True)
class Seen:
    """One operator in one network: the shapes of its tensors, inputs and weights first, and its milliseconds."""

    shapes: tuple[tuple[int, ...], ...]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Law:
    """milliseconds = fixed + sum over tensors of rate * elements, the dims that vary rounded up to `padding`.

    The elements of a weight stand for multiply-accumulates (its positions do not change with widths), those of other
    tensors for memory traffic. No term is negative.
    """

    fixed: float
    rates: tuple[float, ...]
    padding: int

    def time(self, sizes: Sequence[Sequence[Any]], varies: Sequence[Sequence[bool]]) -> Any:
        """Milliseconds for these shapes: their sizes are ints, or arrays that broadcast together."""
        elements = (_elements(s, v, self.padding) for s, v in zip(sizes, varies, strict=True))
        return self.fixed + sum(rate * n for rate, n in zip(self.rates, elements, strict=True))


def fit(seen: Sequence[Seen], varies: Sequence[Sequence[bool]]) -> Law:
    """The law that misses the times least, relative to them; of paddings that do as well the least."""
    times = np.array([one.milliseconds for one in seen])
    weight = 1 / np.maximum(times, 1e-6)
    best: tuple[float, Law] | None = None
    for padding in PADDINGS:
        sizes = np.array(
            [[_elements(s, v, padding) for s, v in zip(one.shapes, varies, strict=True)] for one in seen],
            dtype=np.float64,
        ).reshape(len(seen), -1)
        changing = np.ptp(sizes, axis=0) > 0
        columns = np.column_stack([np.ones(len(seen)), sizes[:, changing]])
        solved, missed = nonnegative(columns * weight[:, None], times * weight)
        rates = np.zeros(sizes.shape[1])
        rates[changing] = solved[1:]
        if best is None or missed < best[0] * 0.98:
            best = missed, Law(float(solved[0]), tuple(map(float, rates)), padding)
    assert best is not None
    return best[1]


def _elements(shape: Sequence[Any], varies: Sequence[bool], padding: int) -> Any:
    total: Any = 1.0
    for size, moves in zip(shape, varies, strict=True):
        total *= -(-size // padding) * padding if moves else size
    return total


def nonnegative(columns: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with x >= 0, and what it misses: the best of all sets of columns whose x are positive.

    That is exact, and there are few columns: an operator has few tensors whose sizes move.
    """
    scale = np.linalg.norm(columns, axis=0)
    a = columns / np.where(scale > 0, scale, 1.0)
    gram, right, energy = a.T @ a, a.T @ wanted, float(wanted @ wanted)
    best, missed = np.zeros(a.shape[1]), energy
    for chosen in _subsets(a.shape[1]):
        try:
            x = np.linalg.solve(gram[np.ix_(chosen, chosen)], right[chosen])
        except np.linalg.LinAlgError:
            continue
        left = energy - float(x @ right[chosen])
        if (x >= 0).all() and left < missed - 1e-12 * energy:
            best, missed = np.zeros(a.shape[1]), left
            best[chosen] = x
    return best / np.where(scale > 0, scale, 1.0), max(0.0, missed)


def _subsets(count: int) -> Iterator[list[int]]:
    for number in range(1, 2**count):
        yield [place for place in range(count) if number >> place & 1]
