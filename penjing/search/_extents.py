"""Sizes of tensors as functions of how many units stay in each group."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penjing.structure import Count, Dim, State, Structure, evaluate_count, owners_of, variables

Size = Any  # an int, a count, or (full size, group, its units) for what is no count


class Extents:
    """The sizes of a structure's values and states. A dim whose size depends on which units stay, not on how many, is
    taken to shrink in step with the first group that owns a part of it.
    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._owners = owners_of(structure.groups, len(structure.facts[0].atoms))
        self._full = {i: len(g) for i, g in enumerate(structure.groups)}
        self._known: dict[
            tuple[int, ...], tuple[Count | None, Dim]
        ] = {}  # dims are held: their ids stay theirs
        self._values: dict[int, tuple[Size, ...]] = {}

    def of_value(self, value: int) -> tuple[Size, ...]:
        if value not in self._values:
            shape = self._structure.graph.values[value].shape
            dims = self._structure.dims(value)
            self._values[value] = tuple(self._size(d, n) for d, n in zip(dims, shape, strict=True))
        return self._values[value]

    def of_state(self, state: State) -> tuple[Size, ...]:
        atoms = self._structure.facts[0].atoms
        dims = [atoms.expand(d) if d else d for d in state.labels or ((),) * len(state.shape)]
        return tuple(self._size(d, n) for d, n in zip(dims, state.shape, strict=True))

    def _size(self, dim: Dim, full: int) -> Size:
        if not dim:
            return full
        key = (full, *map(id, dim))
        if key not in self._known:
            self._known[key] = self._owners.count(dim, full), dim
        found = self._known[key][0]
        if found is None:
            owners = {int(g) for column in dim for g in self._owners.group[column] if g >= 0}
            return (full, min(owners), self._full[min(owners)]) if owners else full
        return found if any(True for _ in variables(found)) else full


def groups_in(sizes: Sequence[Size]) -> frozenset[int]:
    """The numbers of the groups that these sizes depend on."""
    found: set[int] = set()
    for size in sizes:
        if isinstance(size, tuple):
            found.add(size[1])
        elif not isinstance(size, int):
            found.update(variables(size))
    return frozenset(found)


def size_at(size: Size, kept: Mapping[int, Any]) -> Any:
    """The size for kept counts: ints, or arrays of them."""
    if isinstance(size, int):
        return size
    if isinstance(size, tuple):
        full, group, units = size
        found = full * kept[group] // units
        return max(1, found) if isinstance(found, int) else np.maximum(1, found)
    return evaluate_count(size, kept)
