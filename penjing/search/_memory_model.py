"""Bytes that a forward holds at its worst moment, at any widths, from the traced graph.

A tensor's memory is taken when a call makes it and given back after the last call that reads it or a view of it. Every
call is a moment; what is alive then is a sum over tensors whose sizes are polynomials of kept counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from penjing.core._graph import Graph, OpCall
from penjing.measure import peak_memory
from penjing.search._cost import itemsize
from penjing.search._extents import Extents
from penjing.search._prices import Elements, Priced, weights_in_bytes
from penjing.structure import Structure

VIEWS = frozenset(
    {"aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh"}
)  # not said in their schemas
NORM = 16  # of the moments, where a slope is asked: the worst alone hides what the next worst ones would save


class Moments:
    """What is alive at the moments of a forward that can be its worst.

    `counts` [moments, kinds] says how many tensors of each kind (a product of sizes, in bytes) are alive.
    """

    def __init__(self, structure: Structure) -> None:
        sizes, graph = Extents(structure), structure.graph
        kinds: dict[tuple[Any, ...], int] = {}
        self._tensors: list[Elements] = []
        of: dict[int, int] = {}
        spans = _spans(graph)
        for value in spans:
            each = itemsize(graph.values[value].dtype)
            key = (each, *sizes.of_value(value))
            if key not in kinds:
                kinds[key] = len(kinds)
                self._tensors.append(Elements(key[1:], each))
            of[value] = kinds[key]
        alive = np.zeros((len(graph.calls) + 1, len(kinds)))
        for value, (born, last) in spans.items():
            alive[born : last + 1, of[value]] += 1
        self.counts = _undominated(alive)
        self.groups = frozenset().union(*(tensor.groups for tensor in self._tensors))

    def at(self, kept: Mapping[int, Any]) -> np.ndarray:
        """Bytes alive, [moments] or, where counts are arrays of options, [moments, options]."""
        costs = [np.asarray(tensor.cost(kept), dtype=np.float64) for tensor in self._tensors]
        return self.counts @ np.stack(np.broadcast_arrays(*costs))


def _spans(graph: Graph) -> dict[int, tuple[int, int]]:
    """By the value that first showed a memory: the first and the last call during which it is taken."""
    states, end = set(graph.states.values()), len(graph.calls)
    root = {value: value for value in (*graph.inputs, *graph.constants, *states)}
    spans = {value: [0, end] for value in graph.inputs}
    for number, call in enumerate(graph.calls):
        for place, made in enumerate(call.outputs):
            shown = _shows(call, place)
            root[made] = made if shown is None else root.get(shown, shown)
            if root[made] == made:
                spans[made] = [number, number]
        for value in (*call.inputs, *call.outputs):
            found = spans.get(root.get(value, value))
            if found is not None:
                found[1] = max(found[1], number)
    for value in graph.outputs:
        if root.get(value, value) in spans:
            spans[root.get(value, value)][1] = end
    return {value: (first, last) for value, (first, last) in spans.items()}


def _shows(call: OpCall, place: int) -> int | None:
    """The input whose memory this output shows: views, and operations in place."""
    schema = call.op._schema
    if not call.inputs:
        return None
    if schema.name in VIEWS:
        return call.inputs[0]
    returned = schema.returns[min(place, len(schema.returns) - 1)] if schema.returns else None
    return call.inputs[0] if returned is not None and returned.alias_info is not None else None


def _undominated(alive: np.ndarray) -> np.ndarray:
    """The rows that are not at most another row everywhere: the worst moment is one of them at any widths."""
    rows = np.unique(alive, axis=0)[::-1]
    kept: list[np.ndarray] = []
    for row in rows[np.argsort(-rows.sum(axis=1), kind="stable")]:
        if not any((row <= other).all() for other in kept):
            kept.append(row)
    return np.array(kept)


@dataclass(frozen=True, slots=True)
class _Worst:
    """The worst moment, as a part of a figure; its p-norm where a slope is asked."""

    moments: Moments
    scale: float
    norm: int | None = None

    @property
    def groups(self) -> frozenset[int]:
        return self.moments.groups

    def cost(self, kept: Mapping[int, Any]) -> Any:
        found = self.moments.at(kept)
        worst = found.max(axis=0)
        if self.norm is not None:
            worst = worst * ((found / np.maximum(worst, 1.0)) ** self.norm).sum(axis=0) ** (1 / self.norm)
        return self.scale * worst


class MemoryGauge:
    """Bytes of one forward at a batch size: weights, and `scale` times what the trace says of the rest.

    The scale is the batch size over that of the trace, and what the trace does not see (fused attention, references
    that code holds); networks that are measured set it right.
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        example: Any,
        *,
        batch_size: int | None,
        threads: int | None,
    ) -> None:
        self._structure = structure
        self._measuring = {"example_inputs": example, "batch_size": batch_size, "threads": threads}
        self._moments = Moments(structure)
        self._weights = weights_in_bytes(structure, Extents(structure))
        self._scale = 1.0
        self.full = self.measured(model)
        self.learn({}, self.full)

    def measured(self, model: nn.Module) -> float:
        return peak_memory(model, **self._measuring).value

    def predicted(self, kept: Mapping[str, int]) -> float:
        """Bytes with these units kept, by group name; groups left out stay whole."""
        counts = self._counts(kept)
        return float(sum(part.cost(counts) for part in self.parts))

    @property
    def parts(self) -> list[Priced]:
        return [*self._weights, _Worst(self._moments, self._scale)]

    @property
    def slopes(self) -> list[Priced]:
        """As `parts`, smooth in what is nearly the worst."""
        return [*self._weights, _Worst(self._moments, self._scale, NORM)]

    def learn(self, kept: Mapping[str, int], measured: float) -> None:
        """`predicted` says what was measured, where that is more than the weights."""
        counts = self._counts(kept)
        weights = sum(part.cost(counts) for part in self._weights)
        live = float(self._moments.at(counts).max())
        self._scale = max((measured - weights) / live, 1e-6) if live else 1.0

    def _counts(self, kept: Mapping[str, int]) -> dict[int, int]:
        return {i: kept.get(g.name, len(g)) for i, g in enumerate(self._structure.groups)}
