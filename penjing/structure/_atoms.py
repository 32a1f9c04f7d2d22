"""Labels: which indices of which dims disappear together.

A `Dim` is a tuple of integer columns, one entry per index; an index disappears when any atom in its row does.
The empty tuple is a dim of fixed size without labels. Atoms live in one union-find; an atom may also be *bound*
to a pair of atoms (it disappears when either does), which is how a reshape of 768 into 12 x 64 finds heads and
head dims. Atoms below `Atoms.first` are frozen, one id per cause.

Whole dims that meet whole dims are joined block by block (`_columns`); everything else goes index by index.
"""

import math
from collections.abc import Sequence

import numpy as np

from penjing.structure._causes import MOST, Causes
from penjing.structure._columns import ATOM, CUT, FROZEN, MIXED, SPLIT, WHOLE, Block, Pattern, lay_out
from penjing.structure._expansion import Expanded, distinct
from penjing.structure._factors import (
    along_one,
    beyond,
    common_grid,
    components,
    matched,
    rising,
    same_labels,
    varies,
)

Dim = tuple[np.ndarray, ...]
FIXED: Dim = ()


class Atoms:
    """The union-find over atoms. Every loop is bounded by the number of atoms."""

    first = MOST

    def __init__(self) -> None:
        self._parent = np.arange(2 * MOST, dtype=ATOM)
        # atom -> the two it is bound to, and the position of its innermost block
        self._left, self._right, self._owner = (np.full(2 * MOST, -1, dtype=ATOM) for _ in range(3))
        self._count = MOST
        self._causes = Causes()
        self._blocks: list[Block] = []
        self._known: dict[int, Pattern] = {}  # by id of the column, which the pattern keeps alive
        self._changes = 0  # how often what atoms share changed, and what columns were by then
        self._expansions: dict[int, tuple[np.ndarray, int, Expanded]] = {}

    def __len__(self) -> int:
        return self._count

    def fresh(self, n: int) -> np.ndarray:
        """`n` new free atoms."""
        return self._column(self._block(n).pattern())

    def _block(self, n: int) -> Block:
        known = len(self._parent)
        if self._count + n > known:
            none = np.full(max(self._count + n - known, known // 4), -1, dtype=ATOM)
            self._parent = np.append(self._parent, np.arange(known, known + len(none), dtype=ATOM))
            tables = (self._left, self._right, self._owner)
            self._left, self._right, self._owner = (np.append(table, none) for table in tables)
        self._count += n
        return self._own(Block(self._count - n, n))

    def _own(self, block: Block) -> Block:
        self._owner[block.start : block.start + block.size] = len(self._blocks)
        self._blocks.append(block)
        return block

    def _column(self, pattern: Pattern) -> np.ndarray:
        if pattern.column is None:
            self._known[id(pattern.array())] = pattern
        assert pattern.column is not None
        return pattern.column

    def pattern(self, column: np.ndarray) -> Pattern | None:
        """The pattern of a column over its root block, where that block is WHOLE."""
        found = self._known.get(id(column))
        if found is None:
            return None
        root = found.block if found.block.above is None else found.block.root()
        if root.state != WHOLE:
            return None
        return found if root is found.block else root.pattern(found.outer, found.inner)

    def _mix(self, atoms: np.ndarray) -> None:
        """These atoms now have fates of their own."""
        self._changes += 1
        owners = self._owner[atoms]
        for position in set(owners.tolist()) if len(owners) < 64 else np.unique(owners).tolist():
            self._blocks[position].root().state = MIXED

    def frozen(self, cause: str) -> int:
        """The frozen atom that stands for a cause."""
        return self._causes.atom(cause)

    def cause(self, atom: int) -> str:
        return self._causes.text(atom)

    def find(self, atoms: np.ndarray) -> np.ndarray:
        """Roots of atoms (bindings are not followed)."""
        pattern = self.pattern(atoms)
        if pattern is not None:
            return self._column(pattern)
        parent = self._parent
        root, above = atoms, parent[atoms]
        while not np.array_equal(above, root):
            root, above = above, parent[above]
        if root is not atoms:
            parent[atoms] = root
        return root

    def expand(self, dim: Dim) -> Dim:
        """The same labels over unbound roots: bound atoms become columns, repeated and neutral columns go."""
        if len(dim) == 1:
            return self._expanded(dim[0]).dim
        found = [self._expanded(column) for column in dim]
        free = [column for each in found if each.free for column in each.dim]
        return tuple(distinct(free, self._known)) if free else found[0].dim if found else dim

    def _expanded(self, column: np.ndarray) -> Expanded:
        pattern = self.pattern(column)
        if pattern is not None:
            if pattern.expanded is None:
                pattern.expanded = Expanded((self._column(pattern),), True)
            return pattern.expanded
        known = self._expansions.get(id(column))
        if known is None or (known[1] != self._changes and known[2].free):
            known = self._expansions[id(column)] = (column, self._changes, self._expand(column))
        return known[2]

    def _expand(self, column: np.ndarray) -> Expanded:
        columns: list[np.ndarray] = []
        still: list[np.ndarray] = []
        pending = [column]
        while pending:
            column = pending.pop()
            pattern = self._known.get(id(column))
            if pattern is None or (block := pattern.block.root()).state in (CUT, MIXED):
                self._expand_rows(column, columns, still, pending)
            elif block.state == WHOLE:
                columns.append(self._column(block.pattern(pattern.outer, pattern.inner)))
            elif block.state == SPLIT:
                parts = map(self._column, reversed(block.parts))
                pending.extend(self._spread(p, pattern.outer, pattern.inner) for p in parts)
            else:
                still.append(np.full(len(column), block.cause, dtype=ATOM))
        return Expanded(tuple(distinct(columns, self._known) if columns else still[:1]), bool(columns))

    def _expand_rows(self, column: np.ndarray, *found: list[np.ndarray]) -> None:
        columns, still, pending = found
        column = self.find(column)
        bound = self._left[column] >= 0
        if bound.any():
            pending.append(np.where(bound, self._right[column], column))
            pending.append(np.where(bound, self._left[column], column))
        else:
            (columns if (column >= self.first).any() else still).append(column)

    def is_free(self, dim: Dim) -> bool:
        """Whether any index of the dim may disappear."""
        return any(self._expanded(column).free for column in dim)

    def freeze(self, dim: Dim, cause: str) -> None:
        """No index of the dim may disappear, for this cause."""
        self._freeze(dim, self.frozen(cause))

    def _freeze(self, dim: Dim, atom: int) -> None:
        for column in self.expand(dim):
            pattern = self.pattern(column)
            if pattern is not None:
                self._changes += 1
                pattern.block.state, pattern.block.cause = FROZEN, atom
                self._parent[pattern.block.start : pattern.block.start + pattern.block.size] = atom
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
        self._changes += 1
        high.above = low
        self._parent[high.start : high.start + high.size] = np.arange(low.start, low.start + low.size)

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
        self._changes += 1
        block.state, block.parts = SPLIT, tuple(parts)
        own = slice(block.start, block.start + block.size)
        self._left[own], self._right[own] = self._column(parts[0]), self._column(parts[1])

    def cut(self, dim: Dim, start: int, stop: int) -> Dim:
        """Labels of the indices start .. stop - 1."""
        return tuple(self._cut(column, start, stop) for column in dim)

    def _cut(self, column: np.ndarray, start: int, stop: int) -> np.ndarray:
        if (start, stop) == (0, len(column)):
            return column
        pattern = self._known.get(id(column))
        if pattern is None or pattern.outer > 1 or pattern.inner > 1 or not 0 <= start < stop <= len(column):
            return column[start:stop]
        self._changes += 1
        part = pattern.block.root().part(start, stop)
        if part is None:
            return column[start:stop]
        return self._column(part.pattern() if part.patterns else self._own(part).pattern())

    def owners(self, atoms: np.ndarray) -> set[Block]:
        """The innermost blocks that hold these atoms."""
        return {self._blocks[i].root() for i in np.unique(self._owner[atoms]).tolist() if i >= 0}

    def merge(self, dims: Sequence[Dim], shape: Sequence[int]) -> Dim:
        """Labels of dims of these sizes flattened into one."""
        return tuple(
            self._spread(column, math.prod(shape[:axis]), math.prod(shape[axis + 1 :]))
            for axis, dim in enumerate(dims)
            for column in dim
        )

    def _spread(self, column: np.ndarray, outer: int, inner: int) -> np.ndarray:
        """A column repeated and tiled; still a pattern where it can be."""
        if outer == inner == 1:
            return column
        pattern = self._known.get(id(column))
        found = None if pattern is None else pattern.within(outer, inner)
        return self._column(found) if found is not None else np.tile(np.repeat(column, inner), outer)

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
            return [(axis, self._column(block.pattern(outer, inner)))]
        sizes = [shape[axis] for axis, *_ in places]
        parts = [self._block(n).pattern() for n in sizes]
        spread = self.merge([(self._column(p),) for p in parts], sizes)
        self._split(block.pattern(), [self._known[id(c)] for c in spread])
        return [(axis, self._column(p)) for (axis, *_), p in zip(places, parts, strict=True)]

    def _union(self, a: np.ndarray, b: np.ndarray) -> None:
        """Merge atoms pairwise; the smaller id wins, so frozen atoms always do. Both sides must be unbound."""
        while True:
            ra, rb = self.find(a), self.find(b)
            differ = (ra != rb) & ((ra >= self.first) | (rb >= self.first))
            if not differ.any():
                return
            low, high = np.minimum(ra, rb)[differ], np.maximum(ra, rb)[differ]
            self._mix(high)
            np.minimum.at(self._parent, high, low)

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
        bound = (self._left[self.find(atoms)] >= 0) | (self.find(atoms) < self.first)
        for row in rows:
            self._union(atoms[bound], row[bound])
        atoms, rows = atoms[~bound], rows[:, ~bound]
        self._mix(atoms)
        while len(rows) > 2:
            joint = self.fresh(rows.shape[1])
            self._mix(joint)
            self._left[joint], self._right[joint] = rows[-2], rows[-1]
            rows = np.concatenate([rows[:-2], joint[None]])
        self._left[atoms], self._right[atoms] = rows[0], rows[1]

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
