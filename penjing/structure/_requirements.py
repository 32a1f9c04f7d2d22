"""Sizes that code computes must equal the sizes that pruning leaves.

Each requirement says "this dim's size is computed by this expression". Expressions over sizes follow by
themselves; attributes are unknowns to be solved for; literals freeze. Whatever a trial removal of one unit
cannot satisfy is tied (where the size is read from another dim) or frozen, with the cause.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.structure._atoms import Atoms, Dim, same_labels
from penjing.structure._provenance import Attr, Expr, Size, evaluate, leaves
from penjing.structure._rules import Facts, Requirement


@dataclass(frozen=True, slots=True)
class Live:
    """A requirement that pruning can break, over unbound roots."""

    source: Requirement
    facts: Facts
    dim: Dim
    sizes: Mapping[Size, Dim]
    attributes: tuple[Attr, ...]


def live_requirements(all_facts: Sequence[Facts]) -> list[Live]:
    """Requirements on dims that may shrink, without those that hold by construction."""
    atoms = all_facts[0].atoms
    found: list[Live] = []
    for facts in all_facts:
        for requirement in facts.requirements:
            live = _live(atoms, facts, requirement)
            if live is not None:
                found.append(live)
    return found


def _live(atoms: Atoms, facts: Facts, requirement: Requirement) -> Live | None:
    dim = atoms.expand(requirement.dim)
    expr = requirement.expr
    sizes = {
        leaf: atoms.expand(facts.labels[leaf.value][leaf.dim])
        for leaf in leaves(expr)
        if isinstance(leaf, Size)
    }
    attributes = tuple(dict.fromkeys(leaf for leaf in leaves(expr) if isinstance(leaf, Attr)))
    movable = [d for d in (dim, *sizes.values()) if any((c >= atoms.first).any() for c in d)]
    if not movable:
        return None
    if isinstance(expr, Size) and same_labels(dim, sizes[expr]):
        return None
    return Live(requirement, facts, dim, sizes, attributes)


def kept_size(dim: Dim, gone: np.ndarray, full: int | None = None) -> int:
    """How many indices of a dim stay when the atoms marked in `gone` go."""
    if not dim:
        return full or 0
    lost = gone[dim[0]]
    for column in dim[1:]:
        lost = lost | gone[column]
    return int(len(lost) - np.count_nonzero(lost))


@dataclass(frozen=True, slots=True)
class Solution:
    """New attribute values, or the requirement that cannot be met."""

    attributes: Mapping[Attr, int]
    broken: Live | None


def solve(live: Sequence[Live], gone: np.ndarray, current: Callable[[Attr], int]) -> Solution:
    """Attribute values that make every requirement hold after the atoms in `gone` are removed."""
    values: dict[Attr, int] = {}
    later: list[Live] = []
    for item in live:
        expr = item.source.expr
        if not isinstance(expr, Attr):
            later.append(item)
        elif values.setdefault(expr, kept_size(item.dim, gone)) != kept_size(item.dim, gone):
            return Solution(values, item)
    for item in later:
        if not _settle(item, gone, values, current):
            return Solution(values, item)
    return Solution(values, None)


def _settle(item: Live, gone: np.ndarray, values: dict[Attr, int], current: Callable[[Attr], int]) -> bool:
    expr, wanted = item.source.expr, kept_size(item.dim, gone)

    def read(leaf: Size | Attr) -> int:
        if isinstance(leaf, Attr):
            return values[leaf] if leaf in values else current(leaf)
        shape = item.facts.shapes[leaf.value]
        return kept_size(item.sizes[leaf], gone, shape[leaf.dim])

    if evaluate(expr, read) == wanted:
        return True
    unknown = [a for a in item.attributes if a not in values]
    for attribute in unknown:
        value = _search(expr, attribute, current(attribute), wanted, values, read)
        if value is not None:
            values[attribute] = value
            return True
    return False


def _search(
    expr: Expr,
    attribute: Attr,
    now: int,
    wanted: int,
    values: dict[Attr, int],
    read: Callable[[Size | Attr], int],
) -> int | None:
    """The value of one attribute, at most its present one, that gives the expression the wanted value."""
    for candidate in range(now - 1, 0, -1):
        values[attribute] = candidate
        if evaluate(expr, read) == wanted:
            return candidate
    del values[attribute]
    return None
