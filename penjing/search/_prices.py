"""What every group's width costs in MACs, parameters and bytes, given its neighbours' widths.

A layer's MACs are the product of two groups' widths, so what a unit saves shrinks with its neighbours. The sizes are
polynomials of kept counts: a group is priced anew from the few calls and tensors it has part in, without building or
running anything.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Protocol

from torch.utils.flop_counter import flop_registry

from penjing.core._graph import OpCall, Ref
from penjing.search._cost import bytes_each
from penjing.search._extents import Extents, groups_in, size_at
from penjing.structure import Structure


class Priced(Protocol):
    """A part of a figure, and the numbers of the groups that it depends on."""

    @property
    def groups(self) -> frozenset[int]: ...

    def cost(self, kept: Mapping[int, Any]) -> Any: ...


class Prices:
    """MACs, parameters and bytes of weights, and what `given` holds the parts of, as functions of kept counts (group
    number -> units).

    A dim whose size depends on which units stay, not on how many, is taken to shrink in step with the first group
    that owns a part of it: figures that decide go by `CostModel`.
    """

    def __init__(
        self,
        structure: Structure,
        metrics: Sequence[str],
        given: Mapping[str, Sequence[Priced]] | None = None,
    ) -> None:
        self._structure = structure
        self._sizes = Extents(structure)
        made = {"macs": self._calls, "params": self._tensors, "size": self._bytes}
        self._parts = {m: list(given[m]) if given and m in given else made[m]() for m in metrics}
        self._of: dict[str, dict[int, list[int]]] = {m: {} for m in metrics}
        for metric, parts in self._parts.items():
            for number, part in enumerate(parts):
                for group in part.groups:
                    self._of[metric].setdefault(group, []).append(number)

    def total(self, metric: str, kept: Mapping[int, int]) -> float:
        return sum(part.cost(kept) for part in self._parts[metric])

    def share(self, metric: str, groups: Sequence[int], kept: Mapping[int, Any]) -> Any:
        """The cost of everything that one of these groups has part in; for arrays of counts where the parts take
        them.
        """
        of, parts = self._of[metric], self._parts[metric]
        numbers = of.get(groups[0], []) if len(groups) == 1 else {n for g in groups for n in of.get(g, ())}
        return sum(parts[n].cost(kept) for n in numbers)

    def _calls(self) -> list[Priced]:
        return [part for _, part in macs_by_call(self._structure, self._sizes)]

    def _tensors(self) -> list[Priced]:
        return [Elements(self._sizes.of_state(state)) for state in self._structure.states if state.learned]

    def _bytes(self) -> list[Priced]:
        return weights_in_bytes(self._structure, self._sizes)


class Elements:
    """A product of sizes, `each` times."""

    def __init__(self, sizes: tuple[Any, ...], each: int = 1) -> None:
        self._sizes, self._each = sizes, each
        self.groups = groups_in(sizes)

    def cost(self, kept: Mapping[int, Any]) -> Any:
        return self._each * prod(size_at(s, kept) for s in self._sizes)


class _Call(Elements):
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
        return tuple(size_at(size, kept) for size in self._shapes[value])


def weights_in_bytes(structure: Structure, sizes: Extents) -> list[Priced]:
    """Every parameter and buffer, in bytes."""
    return [Elements(sizes.of_state(state), bytes_each(structure, state)) for state in structure.states]


def macs_by_call(structure: Structure, sizes: Extents) -> list[tuple[OpCall, Priced]]:
    """Every operator that multiplies, and its MACs."""
    calls = [c for c in structure.graph.calls if c.op.overloadpacket in flop_registry]
    return [(c, _Call(c, {v: sizes.of_value(v) for v in (*c.inputs, c.outputs[0])})) for c in calls]
