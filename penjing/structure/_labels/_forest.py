"""The union-find over atoms, where an atom may also be bound to two others: it disappears when either does."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from penjing.structure._labels._columns import ATOM

_NONE = np.empty(0, dtype=ATOM)


class Forest:
    """Parents of atoms, the two that a root is bound to (-1: it is not), and how often what atoms share changed."""

    __slots__ = ("changes", "left", "parent", "right")

    def __init__(self, size: int) -> None:
        self.parent = np.arange(size, dtype=ATOM)
        self.left, self.right = (np.full(size, -1, dtype=ATOM) for _ in range(2))
        self.changes = 0

    def grow(self, size: int) -> None:
        """Room for `size` atoms."""
        known, none = len(self.parent), np.full(size - len(self.parent), -1, dtype=ATOM)
        self.parent = np.append(self.parent, np.arange(known, size, dtype=ATOM))
        self.left, self.right = np.append(self.left, none), np.append(self.right, none)

    def find(self, atoms: np.ndarray) -> np.ndarray:
        """Roots of atoms, whether bound or not."""
        parent = self.parent
        root, above = atoms, parent[atoms]
        while not (above == root).all():
            root, above = above, parent[above]
        if root is not atoms:
            parent[atoms] = root
        return root

    def are_ends(self, atoms: np.ndarray) -> bool:
        """Whether all of these are unbound roots."""
        return bool((self.parent[atoms] == atoms).all() and (self.left[atoms] < 0).all())

    def bind(self, atoms: np.ndarray | slice, left: np.ndarray, right: np.ndarray) -> None:
        self.left[atoms], self.right[atoms] = left, right

    def ends(self, columns: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """Per column the columns of unbound roots it comes down to; all are followed step by step together.

        A column of which an index is bound gives two, one for either side. An atom that is bound to one root on both
        sides is that root from here on, so that the steps that lead to it are taken once.
        """
        flat = self.find(np.concatenate(columns) if len(columns) > 1 else columns[0]) if columns else _NONE
        bound = self.left[flat] >= 0
        if len(columns) == 1 and not bound.any():
            return [[flat]]
        found: list[dict[str, np.ndarray]] = [{} for _ in columns]
        paths = [
            (i, "") for i in range(len(columns))
        ]  # left before right: the order of paths is that of columns
        starts = [0, *np.cumsum([len(column) for column in columns]).tolist()]
        while paths:
            left, right = self._sides(flat, bound)
            many = np.concatenate([[0], np.cumsum(bound)])[starts].tolist()
            deeper, parts = [], []
            for (i, path), (start, stop), (before, after) in zip(
                paths, pairwise(starts), pairwise(many), strict=True
            ):
                if before == after:
                    found[i][path] = flat[start:stop].copy()
                    continue
                deeper += [(i, path + "0"), (i, path + "1")]
                parts += [left[start:stop], right[start:stop]]
            paths, flat = deeper, np.concatenate([_NONE, *parts])
            starts = [0, *np.cumsum([len(part) for part in parts]).tolist()]
            bound = self.left[flat] >= 0
        return [[own[path] for path in sorted(own)] for own in found]

    def _sides(self, flat: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        left = self.find(np.where(bound, self.left[flat], flat))
        right = self.find(np.where(bound, self.right[flat], flat))
        alike = bound & (left == right)
        if alike.any():
            self.parent[flat[alike]] = left[alike]
        return left, right
