"""How integer columns vary over the axes of a grid, and how sets of columns compare."""

import itertools
import math
from collections.abc import Sequence

import numpy as np


def rising(index: np.ndarray) -> bool:
    return bool((np.diff(index) > 0).all())


def same_labels(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> bool:
    return len(a) == len(b) and all(x is y or np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def first_seen(column: np.ndarray) -> np.ndarray:
    """Each entry replaced by the position of its first occurrence."""
    _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
    return first[inverse.reshape(-1)]


def components(rows: np.ndarray, axis: int, atoms: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Connected components of the bipartite graph 'index of `axis` holds atom'.

    Returns the component of each index of the axis, of each atom, and the number of components.
    """
    size = rows.shape[axis]
    index = np.broadcast_to(
        np.arange(size).reshape([-1 if j == axis else 1 for j in range(rows.ndim)]), rows.shape
    )
    pairs = index.ravel(), rows.ravel()
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


def beyond(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The columns that one side holds besides all those of the other; none where they overlap in another way."""
    few, many = (a, b) if len(a) < len(b) else (b, a)
    if len(few) == len(many):
        return []
    more = [c for c in many if not any(c is f or np.array_equal(c, f) for f in few)]
    return more if len(more) == len(many) - len(few) else []


def matched(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Columns paired with those that vary alike; None unless that pairs all of them."""
    shapes = [first_seen(c) for c in b]
    unused = list(range(len(b)))
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for column in a:
        shape = first_seen(column)
        found = next((i for i in unused if np.array_equal(shapes[i], shape)), None)
        if found is None:
            return None
        unused.remove(found)
        pairs.append((column, b[found]))
    return None if unused else pairs


def varies(grid: np.ndarray) -> list[int]:
    """The axes along which a grid is not constant."""
    return [j for j in range(grid.ndim) if (grid != grid.take([0], axis=j)).any()]


def along_one(grid: np.ndarray, varying: Sequence[int]) -> tuple[int, np.ndarray]:
    """A grid that varies along one axis at most: that axis (else the longest), and its entries there."""
    axis = varying[0] if varying else int(np.argmax(grid.shape))
    return axis, grid[tuple(slice(None) if j == axis else 0 for j in range(grid.ndim))].copy()


def common_grid(columns: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The coarsest grid on which each of the columns varies along whole axes; one axis where there is none.

    A column of 2 halves and one of 4 runs of 4 meet on a grid of 2 x 2 x 4; runs of 4 and runs of 6 share runs of 2.
    """
    size = len(columns[0])
    places = {1, size}
    for column in columns:
        changes = np.flatnonzero(column != column[0])
        if not changes.size:
            continue
        inner = int(changes[0])
        period = inner * len(np.unique(column))
        runs = np.repeat(column[:period:inner], inner)
        if size % period or not np.array_equal(np.resize(runs, size), column):
            return (size,)
        places |= {inner, period}
    steps = sorted(places)
    if any(b % a for a, b in itertools.pairwise(steps)):
        common = math.gcd(*(places - {1}))
        return (size // common, common) if common > 1 else (size,)
    return tuple(b // a for a, b in itertools.pairwise(steps))[::-1]
