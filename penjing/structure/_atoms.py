"""Labels: which indices of which dims disappear together.

A `Dim` is a tuple of integer columns, one entry per index; an index disappears when any atom in its row does.
The empty tuple is a dim of fixed size without labels. Atoms live in one union-find; an atom may also be *bound*
to a pair of atoms (it disappears when either does), which is how a reshape of 768 into 12 x 64 finds heads and
head dims. Atoms below `Atoms.first` are frozen, one id per cause.
"""

from collections.abc import Sequence

import numpy as np

Dim = tuple[np.ndarray, ...]
FIXED: Dim = ()
_CAUSES = 4096


class Atoms:
    """The union-find over atoms, with bindings and frozen causes. Every loop is bounded by the number of atoms."""

    first = _CAUSES

    def __init__(self) -> None:
        self._parent = np.arange(2 * _CAUSES, dtype=np.int64)
        self._left = np.full(2 * _CAUSES, -1, dtype=np.int64)
        self._right = np.full(2 * _CAUSES, -1, dtype=np.int64)
        self._count = _CAUSES
        self._causes: dict[str, int] = {}

    def __len__(self) -> int:
        return self._count

    def fresh(self, n: int) -> np.ndarray:
        """`n` new free atoms."""
        while self._count + n > len(self._parent):
            size = len(self._parent)
            self._parent = np.concatenate([self._parent, np.arange(size, 2 * size, dtype=np.int64)])
            self._left = np.concatenate([self._left, np.full(size, -1, dtype=np.int64)])
            self._right = np.concatenate([self._right, np.full(size, -1, dtype=np.int64)])
        start = self._count
        self._count += n
        return np.arange(start, start + n, dtype=np.int64)

    def frozen(self, cause: str) -> int:
        """The frozen atom that stands for a cause."""
        atom = self._causes.get(cause)
        if atom is None:
            atom = self._causes[cause] = min(len(self._causes), _CAUSES - 1)
        return atom

    def cause(self, atom: int) -> str:
        return next((text for text, known in self._causes.items() if known == atom), "frozen")

    def find(self, atoms: np.ndarray) -> np.ndarray:
        """Roots of atoms (bindings are not followed)."""
        parent = self._parent
        root = parent[atoms]
        while True:
            above = parent[root]
            if np.array_equal(above, root):
                parent[atoms] = root
                return root
            root = above

    def expand(self, dim: Dim) -> Dim:
        """The same labels over unbound roots: bound atoms become columns, repeated and neutral columns go."""
        columns: list[np.ndarray] = []
        pending = [self.find(c) for c in reversed(dim)]
        seen: set[bytes] = set()
        while pending:
            column = pending.pop()
            key = column.tobytes()
            if key in seen:
                continue
            seen.add(key)
            bound = self._left[column] >= 0
            if bound.any():
                right = np.where(bound, self._right[column], column)
                pending.append(self.find(right))
                pending.append(self.find(np.where(bound, self._left[column], column)))
            else:
                columns.append(column)
        free = [c for c in columns if (c >= self.first).any()]
        return tuple(free) if free else tuple(columns[:1])

    def is_free(self, dim: Dim) -> bool:
        """Whether any index of the dim may disappear."""
        return any((c >= self.first).any() for c in self.expand(dim))

    def freeze(self, dim: Dim, cause: str) -> None:
        """No index of the dim may disappear, for this cause."""
        for column in self.expand(dim):
            free = column[column >= self.first]
            if free.size:
                self._union(free, np.full(free.size, self.frozen(cause), dtype=np.int64))

    def unify(self, a: Dim, b: Dim, cause: str) -> Dim:
        """Index i of `a` disappears exactly when index i of `b` does; returns the shared labels.

        Where the two factorise their indices in conflicting ways, both are frozen with the cause.
        """
        a, b = self.expand(a), self.expand(b)
        if not a or not b:
            self.freeze(a or b, cause)
            return a or b
        if same_labels(a, b):
            return a
        if len(a) == 1 and len(b) == 1:
            self._union(a[0], b[0])
        elif len(a) == 1 or len(b) == 1:
            single, several = (a[0], b) if len(a) == 1 else (b[0], a)
            self._bind(single, several)
        else:
            self._pair(a, b, cause)
        return a if len(a) >= len(b) else b

    def reshape(self, columns: Dim, shape: Sequence[int]) -> list[Dim]:
        """Labels of the flat `columns` laid out over several dims; atoms that span dims are split into a product."""
        dims: list[list[np.ndarray]] = [[] for _ in shape]
        for column in self.expand(columns):
            for part in self._factor(column.reshape(tuple(shape))):
                axis, labels = part
                dims[axis].append(labels)
        return [tuple(d) for d in dims]

    def _union(self, a: np.ndarray, b: np.ndarray) -> None:
        """Merge atoms pairwise; the smaller id wins, so frozen atoms always do. Both sides must be unbound."""
        while True:
            ra, rb = self.find(a), self.find(b)
            differ = (ra != rb) & ((ra >= self.first) | (rb >= self.first))
            if not differ.any():
                return
            low, high = np.minimum(ra, rb)[differ], np.maximum(ra, rb)[differ]
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
        while len(rows) > 2:
            joint = self.fresh(rows.shape[1])
            self._left[joint], self._right[joint] = rows[-2], rows[-1]
            rows = np.concatenate([rows[:-2], joint[None]])
        self._left[atoms], self._right[atoms] = rows[0], rows[1]

    def _pair(self, a: Dim, b: Dim, cause: str) -> None:
        shapes = [_pattern(c) for c in b]
        unused = list(range(len(b)))
        matches: list[tuple[np.ndarray, np.ndarray]] = []
        for column in a:
            pattern = _pattern(column)
            found = next((i for i in unused if np.array_equal(shapes[i], pattern)), None)
            if found is None:
                break
            unused.remove(found)
            matches.append((column, b[found]))
        if len(matches) == len(a) == len(b):
            for left, right in matches:
                self._union(left, right)
        else:
            self.freeze(a, cause)
            self.freeze(b, cause)

    def _factor(self, grid: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """One column over several axes -> (axis, labels) pairs whose product says the same."""
        varying = [j for j in range(grid.ndim) if (grid != grid.take([0], axis=j)).any()]
        if not varying:
            axis = int(np.argmax(grid.shape))
            return [(axis, np.full(grid.shape[axis], grid.flat[0], dtype=np.int64))]
        if len(varying) == 1:
            index = tuple(slice(None) if j == varying[0] else 0 for j in range(grid.ndim))
            return [(varying[0], grid[index].copy())]
        atoms, rows = np.unique(grid, return_inverse=True)
        rows = rows.reshape(grid.shape)
        parts = [(axis, *_components(rows, axis, len(atoms))) for axis in varying]
        labels: list[tuple[int, np.ndarray]] = []
        owners: list[np.ndarray] = []
        for axis, per_index, per_atom, count in parts:
            new = self.fresh(count)
            labels.append((axis, new[per_index]))
            owners.append(new[per_atom])
        stuck = atoms < self.first
        for owner in owners:
            self._union(owner[stuck], atoms[stuck])
        free = ~stuck
        self._bind(atoms[free], tuple(o[free] for o in owners))
        return labels


def same_labels(a: Dim, b: Dim) -> bool:
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def _pattern(column: np.ndarray) -> np.ndarray:
    """Each entry replaced by the position of its first occurrence."""
    _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def _components(rows: np.ndarray, axis: int, atoms: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Connected components of the bipartite graph 'index of `axis` holds atom'.

    Returns the component of each index of the axis, of each atom, and the number of components.
    """
    size = rows.shape[axis]
    index = np.broadcast_to(
        np.arange(size).reshape([-1 if j == axis else 1 for j in range(rows.ndim)]), rows.shape
    )
    pairs = np.unique(np.stack([index.ravel(), rows.ravel()]), axis=1)
    parent = np.arange(size)
    for _ in range(size + 1):
        lowest = np.full(atoms, size)
        np.minimum.at(lowest, pairs[1], parent[pairs[0]])
        lower = parent.copy()
        np.minimum.at(lower, pairs[0], lowest[pairs[1]])
        if np.array_equal(lower, parent):
            break
        parent = lower
    of_atom = np.full(atoms, size)
    np.minimum.at(of_atom, pairs[1], parent[pairs[0]])
    names, per_index = np.unique(parent, return_inverse=True)
    return per_index.reshape(-1), np.searchsorted(names, of_atom), len(names)
