"""`op(masked x)[kept] == op(x[kept])`, call by call, on random tensors.

Labels say which indices of every input and output of a call go. Whatever a rule claims for a call is checked by
itself: inputs whose removed indices are zero, through the original's call, against smaller inputs through the call
that the smaller network makes. Calls that take statistics over a removed dim are left to the whole-network proof.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import BUILDERS

import penjing as pj
from penjing.core._edits import RemoveUnits
from penjing.core._graph import Graph, OpCall, Ref
from penjing.structure import Structure, trace_forward

COPIES = (torch.ops.aten.clone, torch.ops.aten.alias)


def fill(item: Any, tensors: dict[int, torch.Tensor]) -> Any:
    if isinstance(item, Ref):
        return tensors[item.value].clone()
    return [fill(i, tensors) for i in item] if isinstance(item, tuple) else item


def run(call: OpCall, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    tensors = dict(zip(call.inputs, inputs, strict=True))
    kwargs = {k: fill(v, tensors) for k, v in call.kwargs.items()}
    found = call.op(*[fill(a, tensors) for a in call.args], **kwargs)
    return [found] if isinstance(found, torch.Tensor) else [t for t in found if isinstance(t, torch.Tensor)]


def some(graph: Graph, value: int) -> torch.Tensor:
    """Positive, so that variances and logarithms are defined."""
    shape, dtype = graph.values[value].shape, graph.values[value].dtype
    if "float" in dtype:
        return torch.rand(shape, dtype=torch.float64) + 0.1
    return torch.zeros(shape, dtype=getattr(torch, dtype.removeprefix("torch.")))


def lost_places(structure: Structure, value: int, gone: np.ndarray) -> list[torch.Tensor]:
    """Per dim, the removed indices."""
    nothing = torch.zeros(0, dtype=torch.long)
    return [
        torch.from_numpy(np.flatnonzero(np.any([gone[c] for c in dim], axis=0))) if dim else nothing
        for dim in structure.dims(value)
    ]


def without(tensor: torch.Tensor, lost: list[torch.Tensor]) -> torch.Tensor:
    for dim, places in enumerate(lost):
        kept = [i for i in range(tensor.shape[dim]) if i not in set(places.tolist())]
        tensor = tensor.index_select(dim, torch.tensor(kept, dtype=torch.long)) if len(places) else tensor
    return tensor


def masked(tensor: torch.Tensor, lost: list[torch.Tensor]) -> torch.Tensor:
    for dim, places in enumerate(lost):
        tensor = tensor.index_fill(dim, places, 0) if len(places) else tensor
    return tensor


def computations(graph: Graph) -> list[tuple[int, OpCall]]:
    return [(i, c) for i, c in enumerate(graph.calls) if c.op.overloadpacket not in COPIES]


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_call_commutes_with_the_removal(name: str):
    case = BUILDERS[name](8)
    model = case.model.eval()
    structure = pj.trace(model, case.example)
    slim, plan = pj.prune(model, case.example, ratio=0.5, criterion="random", seed=1)
    gone = structure.gone({e.group: e.units for e in plan.edits if isinstance(e, RemoveUnits)})
    statistics = {s.call for s in structure.facts[0].spanned if s.renormalized}
    smaller = trace_forward(slim, case.example).graph
    checked = 0
    for (position, old), (_, new) in zip(computations(structure.graph), computations(smaller), strict=True):
        lost = [lost_places(structure, value, gone) for value in old.inputs]
        if position in statistics or not any(len(p) for places in lost for p in places):
            continue
        inputs = [some(structure.graph, value) for value in old.inputs]
        theirs = run(old, [masked(t, places) for t, places in zip(inputs, lost, strict=True)])
        ours = run(new, [without(t, places) for t, places in zip(inputs, lost, strict=True)])
        for value, full, small in zip(old.outputs, theirs, ours, strict=True):
            expected = without(full, lost_places(structure, value, gone))
            torch.testing.assert_close(
                small, expected, rtol=0, atol=1e-9, msg=lambda m, c=old: f"{c.op}: {m}"
            )
        checked += 1
    assert checked
