"""Blocks of atoms that are alike, so that whole dims are joined in one step instead of index by index.

A dim of n indices starts as one block of n atoms. As long as whole blocks meet whole blocks, a column is known as
a *pattern* (block, outer, inner): the block's atoms, each repeated `inner` times, the whole tiled `outer` times.
Merging dims and splitting them again moves patterns; arrays are made only where someone looks at single indices.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

WHOLE, SPLIT, FROZEN, CUT, MIXED = range(5)
ATOM = np.int32  # a network has fewer labelled indices than 2**31
Place = tuple[
    int, bool, int, int
]  # axis, whether it holds the whole block, and if so (outer, inner) on that axis


class Expanded(NamedTuple):
    """Columns of unbound roots; `free` where any of them may disappear."""

    dim: tuple[np.ndarray, ...]
    free: bool


@dataclass(slots=True, eq=False)
class Block:
    """Atoms start .. start + size - 1.

    A root block is WHOLE (every atom its own unbound root), SPLIT (atom i goes when index i of any of `parts` does),
    FROZEN (all stay, for the cause with id `cause`), CUT (its atoms belong to blocks of its parts) or MIXED (its atoms
    have fates of their own).
    """

    start: int
    size: int
    state: int = WHOLE
    above: "Block | None" = None
    parts: tuple["Pattern", ...] = ()
    cause: int = -1
    patterns: dict[tuple[int, int], "Pattern"] = field(default_factory=dict)
    pieces: dict[tuple[int, int], "Block"] = field(default_factory=dict)

    def root(self) -> "Block":
        block = self
        while block.above is not None:
            block = block.above
        if self.above is not None and self.above is not block:
            self.above = block
        return block

    def part(self, start: int, stop: int) -> "Block | None":
        """The block of the atoms start .. stop - 1; None where they are not known to be alike."""
        if self.state not in (WHOLE, CUT):
            return None
        found = self.pieces.get((start, stop))
        if found is None and not any(a < stop and start < b for a, b in self.pieces):
            found = self.pieces[start, stop] = Block(self.start + start, stop - start)
            self.state = CUT
        return found

    def pattern(self, outer: int = 1, inner: int = 1) -> "Pattern":
        found = self.patterns.get((outer, inner))
        if found is None:
            found = self.patterns[outer, inner] = Pattern(self, outer, inner)
        return found


@dataclass(slots=True, eq=False)
class Pattern:
    """A column made of one block."""

    block: Block
    outer: int
    inner: int
    column: np.ndarray | None = None
    expanded: Expanded | None = None

    def array(self) -> np.ndarray:
        if self.column is None:
            own = np.arange(self.block.start, self.block.start + self.block.size, dtype=ATOM)
            own = np.repeat(own, self.inner) if self.inner > 1 else own
            self.column = np.tile(own, self.outer) if self.outer > 1 else own
            self.column.flags.writeable = False
        return self.column

    def within(self, outer: int, inner: int) -> "Pattern | None":
        """This column repeated and tiled once more; None where the result is no pattern."""
        if inner > 1 and self.outer > 1:
            return None
        return self.block.pattern(self.outer * outer, self.inner * inner)

    @property
    def place(self) -> tuple[int, int, int]:
        """Equal for columns that lay their block out alike."""
        return self.outer, self.block.size, self.inner


class Patterns:
    """Patterns by their columns."""

    def __init__(self) -> None:
        self.known: dict[int, Pattern] = {}  # by id of the column, which the pattern keeps alive

    def column(self, pattern: Pattern) -> np.ndarray:
        if pattern.column is None:
            self.known[id(pattern.array())] = pattern
        assert pattern.column is not None
        return pattern.column

    def of(self, column: np.ndarray) -> Pattern | None:
        """The pattern of a column over its root block, where that block is WHOLE."""
        found = self.known.get(id(column))
        if found is None:
            return None
        root = found.block if found.block.above is None else found.block.root()
        if root.state != WHOLE:
            return None
        return found if root is found.block else root.pattern(found.outer, found.inner)

    def spread(self, column: np.ndarray, outer: int, inner: int) -> np.ndarray:
        """A column repeated and tiled; still a pattern where it can be."""
        if outer == inner == 1:
            return column
        pattern = self.known.get(id(column))
        found = None if pattern is None else pattern.within(outer, inner)
        return self.column(found) if found is not None else np.tile(np.repeat(column, inner), outer)


@functools.lru_cache(maxsize=512)
def indices_of(place: tuple[int, int, int]) -> np.ndarray:
    """Which indices of a column of this place each atom of the block owns: int64 of shape (size, outer * inner)."""
    outer, size, inner = place
    tiles = np.arange(outer, dtype=np.int64)[None, :, None] * (size * inner)
    own = np.arange(size, dtype=np.int64)[:, None, None] * inner
    return (own + tiles + np.arange(inner, dtype=np.int64)).reshape(size, outer * inner)


def lay_out(place: tuple[int, int, int], shape: tuple[int, ...]) -> list[Place] | None:
    """Where a column of (outer, size, inner) varies when laid out over `shape`; None where no axes line up.

    One place that holds the whole block, or one per axis that holds a factor of it.
    """
    outer, size, _ = place
    end, before, found = outer * size, 1, []
    for axis, n in enumerate(shape):
        first, before = before, before * n
        if n == 1 or before <= outer or first >= end:
            continue
        if first <= outer and before >= end:
            if outer % first or before % end:
                return None
            return [(axis, True, outer // first, before // end)]
        if first < outer or before > end or first % outer or before % outer or size % (before // outer):
            return None
        found.append((axis, False, 1, 1))
    return found
