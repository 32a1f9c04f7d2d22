"""What every group's width costs in MACs and parameters, given its neighbours' widths.

A layer's MACs are the product of two groups' widths, so what a unit saves shrinks with its neighbours. The sizes are
polynomials of kept counts: a group is priced anew from the few calls and tensors it has part in, without building or
running anything.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from torch.utils.flop_counter import flop_registry

from penjing.core._graph import OpCall, Ref
from penjing.structure import Count, Dim, Structure, evaluate_count, owners_of, variables

Counts = dict[int, int]


class Prices:
    """MACs and parameters as functions of kept counts (group number -> units that stay).

    A dim whose size depends on which units stay, not on how many, is taken to shrink in step with the first group
    that owns a part of it: figures that decide go by `CostModel`.
    """

    def __init__(self, structure: Structure, metrics: Sequence[str]) -> None:
        self._structure = structure
        self._owners = owners_of(structure.groups, len(structure.facts[0].atoms))
        self._known: dict[tuple[int, ...], Count | None] = {}
        self._values: dict[int, tuple[Any, ...]] = {}
        self.full = {i: len(g) for i, g in enumerate(structure.groups)}
        made = {"macs": self._calls, "params": self._tensors}
        self._parts = {metric: made[metric]() for metric in metrics}
        self._of: dict[str, dict[int, list[int]]] = {m: {} for m in metrics}
        for metric, parts in self._parts.items():
            for number, part in enumerate(parts):
                for group in part.groups:
                    self._of[metric].setdefault(group, []).append(number)

    def total(self, metric: str, kept: Mapping[int, int]) -> float:
        return sum(part.cost(kept) for part in self._parts[metric])

    def share(self, metric: str, groups: Sequence[int], kept: Mapping[int, int]) -> float:
        """The cost of everything that one of these groups has part in."""
        of, parts = self._of[metric], self._parts[metric]
        numbers = of.get(groups[0], []) if len(groups) == 1 else {n for g in groups for n in of.get(g, ())}
        return sum(parts[n].cost(kept) for n in numbers)

    def _calls(self) -> list["_Part"]:
        calls = [c for c in self._structure.graph.calls if c.op.overloadpacket in flop_registry]
        return [_Call(c, {v: self._shape(v) for v in (*c.inputs, c.outputs[0])}) for c in calls]

    def _shape(self, value: int) -> tuple[Any, ...]:
        if value not in self._values:
            shape = self._structure.graph.values[value].shape
            dims = self._structure.dims(value)
            self._values[value] = tuple(self._size(d, n) for d, n in zip(dims, shape, strict=True))
        return self._values[value]

    def _tensors(self) -> list["_Part"]:
        atoms, found = self._structure.facts[0].atoms, []
        for state in self._structure.states:
            if state.learned:
                dims = [atoms.expand(d) if d else d for d in state.labels or ((),) * len(state.shape)]
                found.append(_Part(tuple(self._size(d, n) for d, n in zip(dims, state.shape, strict=True))))
        return found

    def _size(self, dim: Dim, full: int) -> Any:
        """An int, a count, or (full size, group, its units) for what is no count."""
        if not dim:
            return full
        key = (full, *map(id, dim))
        if key not in self._known:
            self._known[key] = self._owners.count(dim, full)
        found = self._known[key]
        if found is None:
            owners = {int(g) for column in dim for g in self._owners.group[column] if g >= 0}
            return (full, min(owners), self.full[min(owners)]) if owners else full
        return found if any(True for _ in variables(found)) else full


class _Part:
    """A product of sizes."""

    def __init__(self, sizes: tuple[Any, ...]) -> None:
        self._sizes = sizes
        self.groups = _groups(sizes)

    def cost(self, kept: Mapping[int, int]) -> float:
        return prod(_read(s, kept) for s in self._sizes)


class _Call(_Part):
    """The MACs of one call, by torch.utils.flop_counter's formula."""

    def __init__(self, call: OpCall, shapes: Mapping[int, tuple[Any, ...]]) -> None:
        super().__init__(tuple(size for shape in shapes.values() for size in shape))
        self._call, self._shapes = call, shapes
        self._count = flop_registry[call.op.overloadpacket]

    def cost(self, kept: Mapping[int, int]) -> float:
        args = [self._fill(a, kept) for a in self._call.args]
        kwargs = {k: self._fill(v, kept) for k, v in self._call.kwargs.items()}
        return self._count(*args, out_val=self._at(self._call.outputs[0], kept), **kwargs) / 2

    def _fill(self, item: Any, kept: Mapping[int, int]) -> Any:
        return self._at(item.value, kept) if isinstance(item, Ref) else item

    def _at(self, value: int, kept: Mapping[int, int]) -> tuple[int, ...]:
        return tuple(_read(size, kept) for size in self._shapes[value])


def _groups(sizes: Sequence[Any]) -> frozenset[int]:
    found: set[int] = set()
    for size in sizes:
        if isinstance(size, tuple):
            found.add(size[1])
        elif not isinstance(size, int):
            found.update(variables(size))
    return frozenset(found)


def _read(size: Any, kept: Mapping[int, int]) -> int:
    if isinstance(size, int):
        return size
    if isinstance(size, tuple):
        full, group, units = size
        return max(1, full * kept[group] // units)
    return evaluate_count(size, kept)
