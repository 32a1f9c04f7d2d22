"""Sizes as polynomials of kept counts, and the search for counts that satisfy all of them."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.structure._sizes._counts import (
    Count,
    Owners,
    Poly,
    combine,
    constant,
    evaluate_count,
    substitute,
    variable,
    variables,
)
from penjing.structure._sizes._requirements import kept_size
from penjing.structure._sizes._search import Constraint, Search, parts

FEW = settings(max_examples=80, derandomize=True, deadline=None)
NO_SOURCE: Any = None
OPERATORS = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b}


def trees(depth: int) -> st.SearchStrategy[Any]:
    leaf = st.one_of(st.integers(0, 2).map(lambda v: ("variable", v)), st.integers(1, 6))
    if not depth:
        return leaf
    inside = trees(depth - 1)
    names = st.sampled_from([*OPERATORS, "floordiv", "mod"])
    return st.one_of(leaf, st.tuples(names, inside, inside))


def built(tree: Any) -> Count:
    if isinstance(tree, int):
        return constant(tree)
    return variable(tree[1]) if tree[0] == "variable" else combine(tree[0], built(tree[1]), built(tree[2]))


def plain(tree: Any, values: list[int]) -> int:
    if isinstance(tree, int):
        return tree
    if tree[0] == "variable":
        return values[tree[1]]
    left, right = plain(tree[1], values), plain(tree[2], values)
    if tree[0] in OPERATORS:
        return OPERATORS[tree[0]](left, right)
    if right == 0:
        raise ZeroDivisionError
    return left // right if tree[0] == "floordiv" else left % right


@FEW
@given(trees(3), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_a_count_has_the_value_of_its_arithmetic(tree: Any, values: list[int]):
    try:
        expected = plain(tree, values)
    except ZeroDivisionError:
        return
    count = built(tree)
    assert evaluate_count(count, dict(enumerate(values))) == expected
    arrays = dict(enumerate(values)) | {0: np.array([values[0], values[0]])}
    assert (np.broadcast_to(evaluate_count(count, arrays), (2,)) == expected).all()
    fixed = substitute(count, {0: constant(values[0])})
    assert 0 not in set(variables(fixed))
    assert evaluate_count(fixed, dict(enumerate(values))) == expected


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (("floordiv", ("add", ("mul", 3, ("variable", 0)), 2), 3), ("variable", 0)),
        (("floordiv", ("mul", ("variable", 0), ("variable", 1)), ("variable", 1)), ("variable", 0)),
        (("mod", ("mul", 4, ("variable", 0)), 4), 0),
        (("sub", ("variable", 2), ("variable", 2)), 0),
    ],
)
def test_exact_quotients_are_polynomials(tree: Any, expected: Any):
    assert built(tree) == built(expected)


def test_a_quotient_that_rounds_is_kept():
    assert not isinstance(built(("floordiv", ("variable", 0), 2)), Poly)


@FEW
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.data())
def test_the_polynomial_of_a_dim_is_its_kept_size(heads: int, each: int, repeats: int, data: st.DataObject):
    """(heads x each, repeated) joined with a plain group of 3 and 2 indices without owner."""
    count = heads + each + 3 + 2
    atoms = np.arange(count)
    group = np.array([0] * heads + [1] * each + [2] * 3 + [-1] * 2)
    unit = np.concatenate([np.arange(heads), np.arange(each), np.arange(3), np.zeros(2, dtype=np.int64)])
    first, second = np.repeat(atoms[:heads], each), np.tile(atoms[heads : heads + each], heads)
    rest = atoms[heads + each :]
    dim = tuple(np.concatenate([np.tile(column, repeats), rest]) for column in (first, second))
    found = Owners(group, unit, (heads, each, 3)).count(dim, 0)
    assert found is not None
    gone = np.zeros(count, dtype=bool)
    for atom in data.draw(st.sets(st.integers(0, heads + each + 2))):
        gone[atom] = True
    kept = {g: int((~gone[group == g]).sum()) for g in range(3)}
    assert evaluate_count(found, kept) == kept_size(dim, gone)


def test_a_dim_that_holds_a_part_of_a_group_has_no_polynomial():
    owners = Owners(np.zeros(4, dtype=np.int64), np.arange(4), (4,))
    assert owners.count((np.arange(4),), 0) == variable(0)
    assert owners.count((np.arange(3),), 0) is None
    assert owners.count((np.array([0, 1, 2, 3, 3]),), 0) is None


@FEW
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(1, 6), min_size=4, max_size=4),
    st.data(),
)
def test_the_search_finds_what_trying_everything_finds(
    products: list[tuple[int, int, int, int]], sizes: list[int], data: st.DataObject
):
    """Constraints a * b = k * c + rest, right at full size."""
    full = dict(enumerate(sizes))
    constraints = []
    for a, b, c, k in products:
        rest = sizes[a] * sizes[b] - k * sizes[c]
        left = combine("mul", variable(a), variable(b))
        right = combine("add", combine("mul", constant(k), variable(c)), constant(rest))
        constraints.append(Constraint.of(left, right, NO_SOURCE))
    domains = {v: np.array(sorted({*data.draw(st.sets(st.integers(1, n))), n})) for v, n in full.items()}
    wished = {v: data.draw(st.integers(1, n)) for v, n in full.items()}
    for part, own in parts(constraints):
        found = Search(domains, wished).run(part, own)
        assert found is not None
        assert all(c.holds(found) for c in own)
        assert all(found[v] in domains[v] for v in part)
        smaller = {v: d[:-1] if v == part[0] else d for v, d in domains.items()}
        tried = (
            dict(zip(part, values, strict=True)) for values in itertools.product(*(smaller[v] for v in part))
        )
        exists = any(all(c.holds(values) for c in own) for values in tried)
        assert (Search(smaller, wished).run(part, own, first=part[0]) is not None) == exists


def test_the_hub_goes_up_and_its_partners_stay_near():
    """64 channels, blocks of 32 and of 16 channels per head."""
    channels = [
        Constraint.of(combine("mul", constant(k), variable(v)), variable(0), NO_SOURCE)
        for v, k in ((1, 32), (2, 16))
    ]
    domains = {0: np.arange(1, 129), 1: np.arange(1, 5), 2: np.arange(1, 9)}
    assert Search(domains, {0: 64, 1: 2, 2: 4}).run([0, 1, 2], channels) == {0: 64, 1: 2, 2: 4}
    assert Search(domains, {0: 65, 1: 2, 2: 4}).run([0, 1, 2], channels) == {0: 96, 1: 3, 2: 6}
    assert Search(domains, {0: 39, 1: 1, 2: 2}).run([0, 1, 2], channels) == {0: 64, 1: 2, 2: 4}
    assert Search({**domains, 1: np.array([4])}, {0: 64, 1: 2, 2: 4}).run([0, 1, 2], channels) == {
        0: 128,
        1: 4,
        2: 8,
    }


def test_an_attribute_follows_the_groups_however_many_constraints_name_it():
    sides = [Constraint.of(combine("mul", constant(2), variable(v)), variable(2), NO_SOURCE) for v in (0, 1)]
    domains = {0: np.arange(1, 5), 1: np.arange(1, 5), 2: np.arange(1, 9)}
    assert Search(domains, {0: 1, 1: 1}).run([0, 1, 2], sides) == {0: 1, 1: 1, 2: 2}


def test_a_long_chain_is_followed_in_either_direction():
    count = 3000
    chain = [Constraint.of(variable(v), variable(v + 1), NO_SOURCE) for v in range(count)]
    domains = {v: np.arange(1, 9) for v in range(count + 1)}
    for ordered in (chain, chain[::-1]):
        found = Search(domains, {count // 2: 3}).run(range(count + 1), ordered)
        assert found is not None
        assert set(found.values()) == {3}


def test_a_search_that_takes_too_long_gives_up():
    sides = [Constraint.of(combine("mul", variable(0), variable(1)), constant(10007 * 10009), NO_SOURCE)]
    domains = {0: np.arange(1, 10007), 1: np.arange(1, 10009)}
    assert Search(domains, {0: 1, 1: 1}, checks=50).run([0, 1], sides) is None
