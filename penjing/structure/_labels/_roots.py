"""Labels over unbound roots: what the atoms of a column come down to, remembered until that changes."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.structure._labels._columns import ATOM, CUT, MIXED, SPLIT, WHOLE, Expanded, Patterns
from penjing.structure._labels._forest import Forest


@dataclass(slots=True, eq=False)
class _Held:
    """What a column came down to when so much had changed. It keeps the column, by whose id it is found, alive."""

    column: np.ndarray
    changes: int
    found: Expanded


class Roots:
    """Takes columns down to their roots. Columns that come down to the same give the same objects."""

    def __init__(self, forest: Forest, patterns: Patterns, first: int) -> None:
        self._forest, self._patterns, self._first = forest, patterns, first
        self._held: dict[int, _Held] = {}
        self._checked: dict[
            int, tuple[np.ndarray, int]
        ] = {}  # columns of roots, and up to which change they were
        self._by_hash: dict[tuple[int, int], np.ndarray] = {}

    def of(self, column: np.ndarray) -> Expanded:
        """Bound atoms become columns, repeated and neutral columns go."""
        pattern = self._patterns.of(column)
        if pattern is not None:
            if pattern.expanded is None:
                pattern.expanded = Expanded((self._patterns.column(pattern),), True)
            return pattern.expanded
        if self._is_stale(column):
            self._take_down([column])
        return self._held[id(column)].found

    def prepare(self, dims: Iterable[tuple[np.ndarray, ...]]) -> None:
        """Take all of these down in one go, for whoever asks for them next."""
        columns = {id(column): column for dim in dims for column in dim}.values()
        self._take_down([c for c in columns if self._patterns.of(c) is None and self._is_stale(c)])

    def _is_stale(self, column: np.ndarray) -> bool:
        held = self._held.get(id(column))
        if held is None:
            return True
        if held.changes == self._forest.changes or not held.found.free:
            return False
        if not all(map(self._is_end, held.found.dim)):
            return True
        held.changes = self._forest.changes
        return False

    def _is_end(self, column: np.ndarray) -> bool:
        pattern = self._patterns.known.get(id(column))
        if pattern is not None and pattern.block.above is None and pattern.block.state == WHOLE:
            return True
        checked = self._checked.get(id(column))
        if checked is not None and checked[1] == self._forest.changes:
            return True
        if not self._forest.are_ends(column):
            return False
        self._checked[id(column)] = column, self._forest.changes
        return True

    def _take_down(self, columns: Sequence[np.ndarray]) -> None:
        parts = [self._parts(column) for column in columns]
        rows = [one for own in parts for one, known in own if not known]
        ends = iter(self._forest.ends(rows))
        for column, own in zip(columns, parts, strict=True):
            self._hold(column, [end for one, known in own for end in ([one] if known else next(ends))])

    def _parts(self, column: np.ndarray) -> list[tuple[np.ndarray, bool]]:
        """The columns that a column consists of by its blocks, and whether they are roots."""
        found: list[tuple[np.ndarray, bool]] = []
        pending = [column]
        while pending:
            one = pending.pop()
            pattern = self._patterns.known.get(id(one))
            if pattern is None or (block := pattern.block.root()).state in (CUT, MIXED):
                found.append((one, False))
            elif block.state == WHOLE:
                found.append((self._patterns.column(block.pattern(pattern.outer, pattern.inner)), True))
            elif block.state == SPLIT:
                parts = map(self._patterns.column, reversed(block.parts))
                pending.extend(self._patterns.spread(p, pattern.outer, pattern.inner) for p in parts)
            else:
                found.append((np.full(len(one), block.cause, dtype=ATOM), True))
        return found

    def _hold(self, column: np.ndarray, ends: list[np.ndarray]) -> None:
        free = [c for c in ends if id(c) in self._patterns.known or (c >= self._first).any()]
        columns = distinct(list(map(self._one_each, free)), self._patterns.known)
        if len(columns) == 1 and len(free) == len(ends):  # nobody need go this way again
            self._forest.parent[self._forest.find(column)] = columns[0]
        found = Expanded(tuple(columns or ends[:1]), bool(columns))
        self._held[id(column)] = _Held(column, self._forest.changes, found)

    def _one_each(self, column: np.ndarray) -> np.ndarray:
        if id(column) in self._patterns.known:
            return column
        found = self._by_hash.setdefault((len(column), hash(column.tobytes())), column)
        return found if found is column or np.array_equal(found, column) else column


def distinct(columns: list[np.ndarray], known: Container[int]) -> list[np.ndarray]:
    """Each column once; those whose id is `known` are equal only where they are one object."""
    if len(columns) < 2:
        return columns
    columns = list({id(c): c for c in reversed(columns)}.values())[::-1]
    if all(id(c) in known for c in columns):
        return columns
    return list({c.tobytes(): c for c in reversed(columns)}.values())[::-1]
