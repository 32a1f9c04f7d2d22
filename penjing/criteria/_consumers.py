"""Which dims of which parameters a layer sums over: where a unit is read."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from penjing.core._graph import Graph, OpCall, Ref
from penjing.criteria._calibration import inputs_of
from penjing.criteria._registry import Context
from penjing.structure import Structure, trace_merged

aten = torch.ops.aten

_SUMMED = {aten.mm: ((0, 1), (1, 0)), aten.addmm: ((1, 1), (2, 0)),
           aten.bmm: ((0, 2), (1, 1)), aten.baddbmm: ((1, 2), (2, 1))}  # (argument, dim)  # fmt: skip
_ALIKE = (aten.clone, aten._to_copy, aten.detach, aten.alias, aten.slice, aten.expand, aten.contiguous)


def reading_dims(structure: Structure) -> frozenset[tuple[str, int]]:
    """(parameter name, dim) of every parameter that a matrix product or convolution sums over along that dim.

    Views between a parameter and the product are followed where they permute dims; a parameter that is reshaped
    on its way is left out.
    """
    found: set[tuple[str, int]] = set()
    for trace in structure.traces:
        graph = trace.graph
        made = {value: call for call in graph.calls for value in call.outputs}
        for call in graph.calls:
            for value, dim in _operands(call):
                place = _state(graph, made, value, dim)
                if place is not None:
                    found.update((name, place[1]) for name in graph.names[place[0]])
    return frozenset(found)


def _operands(call: OpCall) -> Iterator[tuple[int, int]]:
    """The values a call sums over, each with the dim."""
    packet = call.op.overloadpacket
    if packet is aten.convolution:
        places = ((1, 0 if call.args[6] else 1),)
    else:
        places = _SUMMED.get(packet, ())
    for argument, dim in places:
        item = call.args[argument]
        if isinstance(item, Ref):
            yield item.value, dim


def _state(graph: Graph, made: dict[int, OpCall], value: int, dim: int) -> tuple[int, int] | None:
    """The parameter or buffer, and its dim, that a value's dim is."""
    while value not in graph.names:
        call = made.get(value)
        before = None if call is None else _before(graph, call, dim)
        if call is None or before is None:
            return None
        value, dim = call.inputs[0], before
    return value, dim


def _before(graph: Graph, call: OpCall, dim: int) -> int | None:
    """Which dim of its input a view's dim was; None for anything else."""
    packet, rank = call.op.overloadpacket, len(graph.values[call.outputs[0]].shape)
    if packet is aten.t:
        return rank - 1 - dim
    if packet is aten.transpose:
        one, other = (int(a) % rank for a in call.args[1:3])
        return {one: other, other: one}.get(dim, dim)
    if packet is aten.permute:
        return int(call.args[1][dim]) % rank
    if packet is aten.unsqueeze:
        at = int(call.args[1]) % rank
        return None if dim == at else dim - (dim > at)
    same = graph.values[call.inputs[0]].shape == graph.values[call.outputs[0]].shape
    if packet in _ALIKE or (packet in (aten.view, aten._unsafe_view, aten.reshape) and same):
        more = rank - len(graph.values[call.inputs[0]].shape)
        return dim - more if dim >= more else None
    return None


def structure_of(model: nn.Module, context: Context, batch: Any) -> Structure:
    """The structure that came with the context, or one traced on a calibration batch."""
    return context.structure or trace_merged(model, inputs_of(batch))
