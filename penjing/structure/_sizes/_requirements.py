"""Sizes that code computes must equal the sizes that pruning leaves.

Each requirement says "this dim's size is computed by this expression". Expressions over sizes follow by
themselves; attributes are unknowns to be solved for; literals freeze.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.structure._labels._atoms import Atoms, Dim
from penjing.structure._labels._factors import same_labels
from penjing.structure._network._provenance import Attr, Size, leaves
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
    expr = requirement.expr
    named = {leaf: facts.labels[leaf.value][leaf.dim] for leaf in leaves(expr) if isinstance(leaf, Size)}
    attributes = tuple(dict.fromkeys(leaf for leaf in leaves(expr) if isinstance(leaf, Attr)))
    if not attributes and not any(map(atoms.is_free, (requirement.dim, *named.values()))):
        return None
    dim, sizes = atoms.expand(requirement.dim), {leaf: atoms.expand(own) for leaf, own in named.items()}
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
