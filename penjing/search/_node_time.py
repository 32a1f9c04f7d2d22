"""The time of one operator as a function of its tensors' sizes, fitted to what was seen at several widths."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PADDINGS = (1, 8, 16, 32)  # widths that kernels round up to
ROOMS = (0.2, 0.4, 0.6, 0.8)  # shares of the networks in which a tensor would still fit into a cache
FEW = 8  # columns, up to which all sets of them are tried
SWEEPS = 2000
ENOUGH = 10  # networks that tell where it no longer does
SPILLS = 0.8  # of what is missed without: below this, it is believed


@dataclass(frozen=True, slots=True)
class Seen:
    """One operator in one network: the shapes of its tensors, inputs and weights first, and its milliseconds."""

    shapes: tuple[tuple[int, ...], ...]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Law:
    """milliseconds = fixed + sum over tensors of rate * elements, the dims that vary rounded up to `padding`; what one
    tensor (`spilling`) has above `room` elements costs `spill` each on top.

    The elements of a weight stand for multiply-accumulates (its positions do not change with widths), those of other
    tensors for memory traffic; a weight that no longer fits into a cache costs more for each. No term is negative.
    """

    fixed: float
    rates: tuple[float, ...]
    padding: int
    spilling: int = 0
    room: float = 0.0
    spill: float = 0.0

    def time(self, sizes: Sequence[Sequence[Any]], varies: Sequence[Sequence[bool]]) -> Any:
        """Milliseconds for these shapes: their sizes are ints, or arrays that broadcast together."""
        elements = [_elements(s, v, self.padding) for s, v in zip(sizes, varies, strict=True)]
        spilt = self.spill * np.maximum(elements[self.spilling] - self.room, 0.0) if self.spill else 0.0
        return self.fixed + spilt + sum(rate * n for rate, n in zip(self.rates, elements, strict=True))


def fit(seen: Sequence[Seen], varies: Sequence[Sequence[bool]]) -> Law:
    """The law that misses the times least, relative to them; of paddings that do as well the least, and with something
    spilling only where that misses much less.
    """
    sizes = np.array(
        [
            [[_elements(s, v, padding) for s, v in zip(one.shapes, varies, strict=True)] for one in seen]
            for padding in PADDINGS
        ],
        dtype=np.float64,
    ).reshape(len(PADDINGS), len(seen), -1)
    times = np.array([one.milliseconds for one in seen])
    missed, law = _solved(times, sizes[0], PADDINGS[0])
    for padding, found in zip(PADDINGS[1:], sizes[1:], strict=True):
        other = _solved(times, found, padding)
        if other[0] < missed * 0.98:
            missed, law = other
    found = sizes[PADDINGS.index(law.padding)]
    paid = np.flatnonzero(law.rates)
    spilling = int(paid[np.argmax(np.ptp(found, axis=0)[paid])]) if len(paid) else 0
    for share in ROOMS if len(seen) >= ENOUGH and len(paid) else ():
        room = float(np.quantile(found[:, spilling], share))
        other = _solved(times, found, law.padding, (spilling, room))
        if other[0] < missed * SPILLS:
            missed, law = other
    return law


def _solved(
    times: np.ndarray, sizes: np.ndarray, padding: int, above: tuple[int, float] | None = None
) -> tuple[float, Law]:
    """What a law of these elements misses, summed squares of shares, and the law."""
    weight = 1 / np.maximum(times, 1e-6)
    changing = _told_apart(sizes)
    columns = np.column_stack([np.ones(len(times)), sizes[:, changing]])
    if above is not None:
        columns = np.column_stack([columns, np.maximum(sizes[:, above[0]] - above[1], 0.0)])
    solved, missed = nonnegative(columns * weight[:, None], times * weight)
    rates = np.zeros(sizes.shape[1])
    rates[changing] = solved[1 : 1 + len(changing)]
    spilt = (above[0], above[1], float(solved[-1])) if above is not None else (0, 0.0, 0.0)
    return missed, Law(float(solved[0]), tuple(map(float, rates)), padding, *spilt)


def _told_apart(sizes: np.ndarray) -> list[int]:
    """The tensors whose elements vary, one of those that vary in proportion: which of them costs cannot be told."""
    found: dict[bytes, int] = {}
    for tensor in np.flatnonzero(np.ptp(sizes, axis=0) > 0):
        share = sizes[:, tensor] / np.abs(sizes[:, tensor]).max()
        found.setdefault(np.round(share, 9).tobytes(), int(tensor))
    return list(found.values())


def _elements(shape: Sequence[Any], varies: Sequence[bool], padding: int) -> Any:
    total: Any = 1.0
    for size, moves in zip(shape, varies, strict=True):
        total *= -(-size // padding) * padding if moves else size
    return total


def nonnegative(columns: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with x >= 0, and what it misses: the best of all sets of columns whose x are positive.

    That is exact, and there are few columns: an operator has few tensors whose sizes move. Of more than `FEW` one
    after the other is set to its best in turn instead (coordinate descent, which converges, as the problem is convex).
    """
    scale = np.linalg.norm(columns, axis=0)
    a = columns / np.where(scale > 0, scale, 1.0)
    gram, right, energy = a.T @ a, a.T @ wanted, float(wanted @ wanted)
    best, missed = np.zeros(a.shape[1]), energy
    if len(gram) > FEW:
        best = _descended(gram, right)
        missed = energy - 2 * float(best @ right) + float(best @ gram @ best)
    for chosen in _subsets(a.shape[1]) if len(gram) <= FEW else ():
        try:
            x = np.linalg.solve(gram[np.ix_(chosen, chosen)], right[chosen])
        except np.linalg.LinAlgError:
            continue
        left = energy - float(x @ right[chosen])
        if (x >= 0).all() and left < missed - 1e-12 * energy:
            best, missed = np.zeros(a.shape[1]), left
            best[chosen] = x
    return best / np.where(scale > 0, scale, 1.0), max(0.0, missed)


def _descended(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x >= 0 of least x.gram.x / 2 - right.x, the gram's diagonal all 1 (or 0)."""
    x = np.zeros(len(gram))
    for _ in range(SWEEPS):
        before = x.copy()
        for place in np.flatnonzero(np.diag(gram) > 0):
            x[place] = max(0.0, x[place] + right[place] - float(gram[place] @ x))
        if np.abs(x - before).max() <= 1e-12 * max(1.0, np.abs(x).max()):
            break
    return x


def _subsets(count: int) -> Iterator[list[int]]:
    for number in range(1, 2**count):
        yield [place for place in range(count) if number >> place & 1]
