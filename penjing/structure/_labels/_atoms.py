"""Labels: which indices of which dims disappear together.

A `Dim` is a tuple of integer columns, one entry per index; an index disappears when any atom in its row does.
The empty tuple is a dim of fixed size without labels. Atoms live in one union-find; an atom may also be *bound*
to a pair of atoms (it disappears when either does), which is how a reshape of 768 into 12 x 64 finds heads and
head dims. Atoms below `Atoms.first` are frozen, one id per cause.

Whole dims that meet whole dims are joined block by block (`_columns`); everything else goes index by index.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from penjing.structure._labels._causes import MOST, Causes
from penjing.structure._labels._columns import ATOM, FROZEN, MIXED, SPLIT, Block, Pattern, Patterns, lay_out
from penjing.structure._labels._factors import (
    along_one,
    beyond,
    common_grid,
    components,
    matched,
    rising,
    same_labels,
    varies,
)
from penjing.structure._labels._forest import Forest
from penjing.structure._labels._roots import Roots, distinct

Dim = tuple[np.ndarray, ...]
FIXED: Dim = ()


class Atoms:
    """The union-find over atoms. Every loop is bounded by the number of atoms."""

    first = MOST

    def __init__(self) -> None:
        self._forest = Forest(2 * MOST)
        self._owner = np.full(2 * MOST, -1, dtype=ATOM)  # the position of an atom's innermost block
        self._count = MOST
        self._causes = Causes()
        self._blocks: list[Block] = []
        self._patterns = Patterns()
        self._roots = Roots(self._forest, self._patterns, self.first)

    def __len__(self) -> int:
        return self._count

    def fresh(self, n: int) -> np.ndarray:
        """`n` new free atoms."""
        return self._patterns.column(self._block(n).pattern())

    def reserve(self, n: int) -> None:
        """Room for `n` more atoms."""
        known = len(self._owner)
        if self._count + n > known:
            self._owner = np.append(self._owner, np.full(self._count + n - known, -1, dtype=ATOM))
            self._forest.grow(len(self._owner))

    def _block(self, n: int) -> Block:
        if self._count + n > len(self._owner):
            self.reserve(max(n, len(self._owner) // 4))
        self._count += n
        return self._own(Block(self._count - n, n))

    def _own(self, block: Block) -> Block:
        self._owner[block.start : block.start + block.size] = len(self._blocks)
        self._blocks.append(block)
        return block

    def pattern(self, column: np.ndarray) -> Pattern | None:
        """The pattern of a column over its root block, where that block is WHOLE."""
        return self._patterns.of(column)

    def _mix(self, atoms: np.ndarray) -> None:
        """These atoms now have fates of their own."""
        self._forest.changes += 1
        for position in self._positions(atoms):
            self._blocks[position].root().state = MIXED

    def _positions(self, atoms: np.ndarray) -> set[int]:
        """The innermost blocks that hold these atoms, of which those in a row mostly share one."""
        owners = self._owner[atoms]
        runs = owners[1:][owners[1:] != owners[:-1]]
        return {*owners[:1].tolist(), *(runs if len(runs) < 64 else np.unique(runs)).tolist()} - {-1}

    def frozen(self, cause: str) -> int:
        """The frozen atom that stands for a cause."""
        return self._causes.atom(cause)

    def cause(self, atom: int) -> str:
        return self._causes.text(atom)

    def find(self, atoms: np.ndarray) -> np.ndarray:
        """Roots of atoms (bindings are not followed)."""
        pattern = self.pattern(atoms)
        if pattern is not None:
            return self._patterns.column(pattern)
        return self._forest.find(atoms)

    def expand(self, dim: Dim) -> Dim:
        """The same labels over unbound roots: bound atoms become columns, repeated and neutral columns go."""
        if len(dim) == 1:
            return self._roots.of(dim[0]).dim
        found = [self._roots.of(column) for column in dim]
        free = [column for each in found if each.free for column in each.dim]
        return tuple(distinct(free, self._patterns.known)) if free else found[0].dim if found else dim

    def expand_together(self, dims: Iterable[Dim]) -> None:
        """`expand` all of these in one go, for whoever asks for them next."""
        self._roots.prepare(dims)

    def is_free(self, dim: Dim) -> bool:
        """Whether any index of the dim may disappear."""
        return any(self._roots.of(column).free for column in dim)

    def freeze(self, dim: Dim, cause: str) -> None:
        """No index of the dim may disappear, for this cause."""
        self._freeze(dim, self.frozen(cause))

    def _freeze(self, dim: Dim, atom: int) -> None:
        for column in self.expand(dim):
            pattern = self.pattern(column)
            if pattern is not None:
                self._forest.changes += 1
                pattern.block.state, pattern.block.cause = FROZEN, atom
                self._forest.parent[pattern.block.start : pattern.block.start + pattern.block.size] = atom
                continue
            free = column[column >= self.first]
            if free.size:
                self._union(free, np.full(free.size, atom, dtype=ATOM))

    def met(self, a: Dim, b: Dim) -> Dim | None:
        """`unify` where both are the same already or blocks that line up; None where more is to be done."""
        a, b = self.expand(a), self.expand(b)
        if a is b or len(a) != 1 or len(b) != 1:
            return a if a is b else None
        one, two = self.pattern(a[0]), self.pattern(b[0])
        if one is None or two is None or one.place != two.place:
            return None
        self._join(one.block, two.block)
        return a

    def unify(self, a: Dim, b: Dim, cause: str) -> Dim:
        """Index i of `a` disappears exactly when index i of `b` does; returns the shared labels.

        Where the two factorise their indices in conflicting ways, both are frozen with the cause.
        """
        a, b = self.expand(a), self.expand(b)
        if not a or not b:
            self.freeze(a or b, cause)
            return a or b
        if self._unify_blocks(a, b) or same_labels(a, b) or self._follow_frozen(a, b):
            return a if len(a) >= len(b) else b
        more = beyond(a, b)
        if more:  # what one side depends on besides cannot go alone
            self.freeze(tuple(more), cause)
            return a if len(a) < len(b) else b
        if len(a) == 1 and len(b) == 1:
            self._union(a[0], b[0])
        elif len(a) == 1 or len(b) == 1:
            single, several = (a[0], b) if len(a) == 1 else (b[0], a)
            self._bind(single, several)
        else:
            self._pair(a, b, cause)
        return a if len(a) >= len(b) else b

    def _unify_blocks(self, a: Dim, b: Dim) -> bool:
        """`unify` where both sides are patterns of whole blocks that line up; False where they are not."""
        ours = [p for p in map(self.pattern, a) if p is not None]
        theirs = [p for p in map(self.pattern, b) if p is not None]
        if len(ours) != len(a) or len(theirs) != len(b):
            return False
        if len(ours) != len(theirs):
            single, several = (ours, theirs) if len(ours) < len(theirs) else (theirs, ours)
            return len(single) == 1 and self._split(single[0], several)
        by_place = {p.place: p for p in theirs}
        if len(by_place) != len(theirs) or by_place.keys() != {p.place for p in ours}:
            return False
        for pattern in ours:
            self._join(pattern.block.root(), by_place[pattern.place].block.root())
        return True

    def _follow_frozen(self, a: Dim, b: Dim) -> bool:
        """`unify` where all of one side stays for one cause: so does the other."""
        for held, other in ((a, b), (b, a)):
            atom = int(held[0][0])
            if len(held) == 1 and atom < self.first and (held[0] == atom).all():
                self._freeze(other, atom)
                return True
        return False

    def _join(self, a: Block, b: Block) -> None:
        if a is b:
            return
        low, high = (a, b) if a.start < b.start else (b, a)
        self._forest.changes += 1
        high.above = low
        self._forest.parent[high.start : high.start + high.size] = np.arange(low.start, low.start + low.size)

    def _split(self, single: Pattern, several: Sequence[Pattern]) -> bool:
        """Bind a whole block to the product of several patterns."""
        block = single.block
        if single.outer > 1 or single.inner > 1 or any(p.block is block for p in several):
            return False
        while len(several) > 2:
            joint = self._block(block.size)
            self._bind_block(joint, several[-2:])
            several = (*several[:-2], joint.pattern())
        self._bind_block(block, several)
        return True

    def _bind_block(self, block: Block, parts: Sequence[Pattern]) -> None:
        self._forest.changes += 1
        block.state, block.parts = SPLIT, tuple(parts)
        own = slice(block.start, block.start + block.size)
        self._forest.bind(own, self._patterns.column(parts[0]), self._patterns.column(parts[1]))

    def cut(self, dim: Dim, start: int, stop: int) -> Dim:
        """Labels of the indices start .. stop - 1."""
        return tuple(self._cut(column, start, stop) for column in dim)

    def _cut(self, column: np.ndarray, start: int, stop: int) -> np.ndarray:
        if (start, stop) == (0, len(column)):
            return column
        pattern = self._patterns.known.get(id(column))
        if pattern is None or pattern.outer > 1 or pattern.inner > 1 or not 0 <= start < stop <= len(column):
            return column[start:stop]
        self._forest.changes += 1
        part = pattern.block.root().part(start, stop)
        if part is None:
            return column[start:stop]
        return self._patterns.column(part.pattern() if part.patterns else self._own(part).pattern())

    def owners(self, atoms: np.ndarray) -> set[Block]:
        """The innermost blocks that hold these atoms."""
        return {self._blocks[i].root() for i in self._positions(atoms)}

    def merge(self, dims: Sequence[Dim], shape: Sequence[int]) -> Dim:
        """Labels of dims of these sizes flattened into one."""
        return tuple(
            self._patterns.spread(column, math.prod(shape[:axis]), math.prod(shape[axis + 1 :]))
            for axis, dim in enumerate(dims)
            for column in dim
        )

    def reshape(self, columns: Dim, shape: Sequence[int]) -> list[Dim]:
        """Labels of the flat `columns` laid out over several dims; atoms that span dims are split into a product."""
        dims: list[list[np.ndarray]] = [[] for _ in shape]
        for column in self.expand(columns):
            parts = self._lay_out(column, tuple(shape))
            for axis, labels in self._factor(column.reshape(tuple(shape))) if parts is None else parts:
                dims[axis].append(labels)
        return [tuple(d) for d in dims]

    def _lay_out(self, column: np.ndarray, shape: tuple[int, ...]) -> list[tuple[int, np.ndarray]] | None:
        pattern = self.pattern(column)
        places = lay_out(pattern.place, shape) if pattern is not None else None
        if pattern is None or not places:
            return None
        block = pattern.block
        if places[0][1]:
            axis, _, outer, inner = places[0]
            return [(axis, self._patterns.column(block.pattern(outer, inner)))]
        sizes = [shape[axis] for axis, *_ in places]
        parts = [self._block(n).pattern() for n in sizes]
        spread = self.merge([(self._patterns.column(p),) for p in parts], sizes)
        self._split(block.pattern(), [self._patterns.known[id(c)] for c in spread])
        return [(axis, self._patterns.column(p)) for (axis, *_), p in zip(places, parts, strict=True)]

    def _union(self, a: np.ndarray, b: np.ndarray) -> None:
        """Merge atoms pairwise; the smaller id wins, so frozen atoms always do. Both sides must be unbound."""
        while True:
            ra, rb = self.find(a), self.find(b)
            differ = (ra != rb) & ((ra >= self.first) | (rb >= self.first))
            if not differ.any():
                return
            low, high = np.minimum(ra, rb)[differ], np.maximum(ra, rb)[differ]
            self._mix(high)
            np.minimum.at(self._forest.parent, high, low)

    def _bind(self, single: np.ndarray, several: Dim) -> None:
        """Atom single[i] disappears exactly when any of the row several[:, i] does."""
        stacked = np.stack(several)
        free = stacked >= self.first
        merge = (free.sum(0) <= 1) | (single < self.first) | np.isin(single, stacked)
        for column, is_free in zip(stacked, free, strict=True):
            rows = merge & (is_free | ~free.any(0))
            self._union(single[rows], column[rows])
        rest = np.flatnonzero(~merge)
        if not rest.size:
            return
        atoms, first, owner = np.unique(single[rest], return_index=True, return_inverse=True)
        for column in stacked:
            self._union(column[rest], column[rest][first][owner.reshape(-1)])
        self._bind_rows(atoms, stacked[:, rest[first]])

    def _bind_rows(self, atoms: np.ndarray, rows: np.ndarray) -> None:
        """Bind distinct atoms to the sets in `rows` (columns x atoms), chaining pairs when there are several."""
        rows = np.stack([self.find(r) for r in rows])
        bound = (self._forest.left[self.find(atoms)] >= 0) | (self.find(atoms) < self.first)
        for row in rows:
            self._union(atoms[bound], row[bound])
        atoms, rows = atoms[~bound], rows[:, ~bound]
        self._mix(atoms)
        while len(rows) > 2:
            joint = self.fresh(rows.shape[1])
            self._mix(joint)
            self._forest.bind(joint, rows[-2], rows[-1])
            rows = np.concatenate([rows[:-2], joint[None]])
        self._forest.bind(atoms, rows[0], rows[1])

    def _pair(self, a: Dim, b: Dim, cause: str) -> None:
        pairs = matched(a, b)
        for left, right in pairs or ():
            self._union(left, right)
        grid = common_grid((*a, *b)) if pairs is None else ()
        if len(grid) > 1:
            for ours, theirs in zip(self.reshape(a, grid), self.reshape(b, grid), strict=True):
                self.unify(ours, theirs, cause)
        elif pairs is None:
            self.freeze((*a, *b), cause)

    def _factor(self, grid: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """One column over several axes -> (axis, labels) pairs whose product says the same."""
        varying = varies(grid)
        if len(varying) < 2:
            return [along_one(grid, varying)]
        atoms, rows = np.unique(grid, return_inverse=True)
        rows = rows.reshape(grid.shape)
        parts = [(axis, *components(rows, axis, len(atoms))) for axis in varying]
        labels: list[tuple[int, np.ndarray]] = []
        owners: list[np.ndarray] = []
        for axis, per_index, per_atom, count in parts:
            new = self.fresh(count)
            labels.append((axis, new if len(new) == len(per_index) and rising(per_index) else new[per_index]))
            owners.append(new[per_atom])
        stuck = atoms < self.first
        for owner in owners:
            self._union(owner[stuck], atoms[stuck])
        free = ~stuck
        self._bind(atoms[free], tuple(o[free] for o in owners))
        return labels
