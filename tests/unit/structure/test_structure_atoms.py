"""The union-find over labels against a slow model: sets of indices that go together."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penjing.structure._labels._atoms import Atoms, Dim
from penjing.structure._labels._columns import Pattern
from penjing.structure._sizes._requirements import kept_size

FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def gone(atoms: Atoms, dim: Dim, removed: set[int]) -> list[bool]:
    """Which indices of `dim` go when the roots in `removed` do."""
    columns = atoms.expand(dim)
    return [any(int(c[i]) in removed for c in columns) for i in range(len(columns[0]))]


def roots(atoms: Atoms, *dims: Dim) -> list[int]:
    return sorted({int(a) for d in dims for c in atoms.expand(d) for a in c if a >= atoms.first})


def assert_same(atoms: Atoms, a: Dim, b: Dim) -> None:
    for root in roots(atoms, a, b):
        assert gone(atoms, a, {root}) == gone(atoms, b, {root})


@FEW
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_a_reshape_says_the_same_in_parts(x: int, y: int, z: int):
    """An index of the flat dim goes exactly when its row, column or layer goes."""
    atoms = Atoms()
    flat = (atoms.fresh(x * y * z),)
    parts = atoms.reshape(flat, (x, y, z))
    merged = atoms.merge(parts, (x, y, z))
    assert_same(atoms, flat, merged)
    for axis, part in enumerate(parts):
        for root in roots(atoms, part):
            lost = np.array(gone(atoms, flat, {root})).reshape(x, y, z)
            own = np.array(gone(atoms, part, {root}))
            assert (lost.any(axis=tuple(a for a in range(3) if a != axis)) == own).all()


@FEW
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=12), st.sets(st.integers(0, 7)))
def test_unions_are_the_connected_components(pairs: list[tuple[int, int]], still: set[int]):
    atoms = Atoms()
    dim = (atoms.fresh(8),)
    for a, b in pairs:
        atoms.unify((dim[0][[a]],), (dim[0][[b]],), "x")
    for i in still:
        atoms.freeze((dim[0][[i]],), "because")
    component = list(range(8))
    for _ in range(8):
        for a, b in pairs:
            component[a] = component[b] = min(component[a], component[b])
    frozen = {component[i] for i in still}
    (column,) = atoms.expand(dim)
    for i, j in itertools.combinations(range(8), 2):
        together = component[i] == component[j] or {component[i], component[j]} <= frozen
        assert (column[i] == column[j]) == together
    for i in range(8):
        assert (column[i] < atoms.first) == (component[i] in frozen)


@FEW
@given(st.permutations(list(range(12))))
def test_unifying_a_product_with_a_permuted_one_keeps_both_alike(order: list[int]):
    atoms = Atoms()
    left = atoms.merge(atoms.reshape((atoms.fresh(12),), (3, 4)), (3, 4))
    right = atoms.merge(atoms.reshape((atoms.fresh(12)[np.array(order)],), (3, 4)), (3, 4))
    atoms.unify(left, right, "differs")
    assert_same(atoms, left, right)


def test_products_that_conflict_freeze_with_the_cause():
    atoms = Atoms()
    one = atoms.merge(atoms.reshape((atoms.fresh(12),), (3, 4)), (3, 4))
    two = atoms.merge(atoms.reshape((atoms.fresh(12),), (4, 3)), (4, 3))
    atoms.unify(one, two, "heads meet otherwise")
    assert not atoms.is_free(one)
    assert not atoms.is_free(two)
    assert atoms.cause(int(atoms.expand(one)[0][0])) == "heads meet otherwise"


def test_meeting_a_fixed_dim_freezes():
    atoms = Atoms()
    dim = (atoms.fresh(3),)
    atoms.unify(dim, (), "meets a dim of fixed size")
    assert not atoms.is_free(dim)


@pytest.mark.parametrize("count", [1, 5000])
def test_more_atoms_than_expected_are_no_trouble(count: int):
    atoms = Atoms()
    dims = [(atoms.fresh(7),) for _ in range(count)]
    assert len(roots(atoms, *dims)) == 7 * count


def test_kept_size_counts_an_index_once():
    atoms = Atoms()
    dim = atoms.merge(atoms.reshape((atoms.fresh(12),), (3, 4)), (3, 4))
    mark = np.zeros(len(atoms), dtype=bool)
    assert kept_size(atoms.expand(dim), mark) == 12
    row, place = (int(c[0]) for c in atoms.expand(dim))
    mark[[row, place]] = True
    assert kept_size(atoms.expand(dim), mark) == 2 * 3


class IndexByIndex(Atoms):
    """The slow twin: no column is known as a pattern of a whole block."""

    def pattern(self, column: np.ndarray) -> None:
        return None

    def _column(self, pattern: Pattern) -> np.ndarray:
        return pattern.array()


@dataclass(frozen=True)
class Steps:
    """A random history of dims of 24 indices: reshaped and merged, joined, frozen."""

    items: tuple[tuple[str, int, int, tuple[int, ...]], ...]

    def run(self, atoms: Atoms) -> list[Dim]:
        dims: list[Dim] = [(atoms.fresh(24),) for _ in range(6)]
        for kind, a, b, shape in self.items:
            if kind == "reshape":
                dims[a] = atoms.merge(atoms.reshape(dims[a], shape), shape)
            elif kind == "swap":
                parts = atoms.reshape(dims[a], shape)
                dims[a] = atoms.merge(parts[::-1], shape[::-1])
            elif kind == "join":
                dims[a] = atoms.unify(dims[a], dims[b], f"joins {a} {b}")
            elif kind == "part":
                atoms.unify(atoms.cut(dims[a], 0, 8), atoms.cut(dims[b], 8, 16), "joins parts")
            else:
                atoms.freeze(dims[a], f"freezes {a}")
        return dims


SHAPES = st.sampled_from([(24,), (2, 12), (4, 6), (6, 4), (3, 8), (2, 3, 4), (4, 3, 2), (1, 24), (2, 1, 12)])
KINDS = st.sampled_from(["reshape", "reshape", "swap", "join", "join", "part", "freeze"])
STEP = st.tuples(KINDS, st.integers(0, 5), st.integers(0, 5), SHAPES)


@settings(max_examples=120, derandomize=True, deadline=None)
@given(st.lists(STEP, max_size=8).map(tuple))
def test_blocks_say_what_index_by_index_says(items: tuple[tuple[str, int, int, tuple[int, ...]], ...]):
    """The same indices go together, and the same stay."""
    fast, slow = Atoms(), IndexByIndex()
    ours, theirs = Steps(items).run(fast), Steps(items).run(slow)
    assert closures(fast, ours) == closures(slow, theirs)


def closures(atoms: Atoms, dims: list[Dim]) -> set[tuple[tuple[int, ...], ...]]:
    """Per removable root, the indices that go in every dim."""
    return {tuple(tuple(np.flatnonzero(gone(atoms, d, {r}))) for d in dims) for r in roots(atoms, *dims)}
