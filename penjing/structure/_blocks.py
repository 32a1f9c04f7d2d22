"""Residual blocks: modules that could become the identity, found on the graph and not by class name."""

from dataclasses import dataclass

import numpy as np
import torch

from penjing.core._graph import Graph, ModuleCall
from penjing.structure._rules import is_pointwise
from penjing.structure._structure import Structure

aten = torch.ops.aten
_CARRIES = {aten.add, aten.add_, aten.clone, aten.native_dropout}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A module called once, one tensor in and one out, with a shortcut from input to output of the same dims."""

    path: str
    tensors: tuple[tuple[str, int], ...]


def residual_blocks(structure: Structure) -> tuple[Block, ...]:
    """The smallest droppable modules, in the order they run."""
    graph = structure.graph
    calls: dict[str, list[ModuleCall]] = {}
    for call in graph.modules:
        calls.setdefault(call.path, []).append(call)
    found = [
        runs[0].path
        for runs in calls.values()
        if len(runs) == 1 and runs[0].path and runs[0].plain and _droppable(structure, runs[0])
    ]
    smallest = [p for p in found if not any(o.startswith(f"{p}.") for o in found)]
    return tuple(Block(path=p, tensors=_tensors(structure, p)) for p in smallest if _tensors(structure, p))


def _tensors(structure: Structure, path: str) -> tuple[tuple[str, int], ...]:
    return tuple(
        (name, state.shape[0] if state.shape else 1)
        for state in structure.states
        for name in state.names
        if name.startswith(f"{path}.")
    )


def _droppable(structure: Structure, call: ModuleCall) -> bool:
    source, target = call.inputs[0], call.outputs[0]
    values = structure.graph.values
    if (
        source == target
        or values[source].shape != values[target].shape
        or values[source].dtype != values[target].dtype
    ):
        return False
    ours, theirs = structure.dims(source), structure.dims(target)
    same = all(len(a) == len(b) and all(map(np.array_equal, a, b)) for a, b in zip(ours, theirs, strict=True))
    return same and _shortcut(structure.graph, call, source, target)


def _shortcut(graph: Graph, call: ModuleCall, source: int, target: int) -> bool:
    """Whether `target` is reached from `source` by additions and unary elementwise ops alone, and an addition."""
    carried: dict[int, bool] = {source: False}
    for op_call in graph.calls[call.first_op : call.last_op]:
        reached = [v for v in op_call.inputs if v in carried]
        if not reached:
            continue
        adds = op_call.op.overloadpacket in (aten.add, aten.add_)
        unary = is_pointwise(op_call.op) and len(op_call.inputs) == 1
        if adds or unary or op_call.op.overloadpacket in _CARRIES:
            added = any(carried[v] for v in reached) or (adds and len(op_call.inputs) > 1)
            carried.update(dict.fromkeys(op_call.outputs, added))
    return carried.get(target, False)
