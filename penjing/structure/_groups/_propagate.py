"""Walk the graph once and label every dim of every value."""

from typing import Any

import torch

from penjing.core import InternalError
from penjing.core._graph import Graph
from penjing.structure._labels._atoms import FIXED
from penjing.structure._rules import RULES, Facts, Rule, Site, carry_places, is_pointwise, pointwise, unknown

aten = torch.ops.aten
LAYOUTS = {
    aten.t, aten.transpose, aten.permute, aten.view, aten._unsafe_view, aten.expand, aten.unsqueeze, aten.squeeze,
    aten.select, aten.slice, aten.clone, aten.detach, aten.alias, aten._to_copy, aten.unbind, aten.split,
}  # fmt: skip


def propagate(facts: Facts, graph: Graph) -> None:
    """Fill `facts` from every call of `graph`; parameters seen before keep their labels (several traces share them).

    Linear in the number of calls.
    """
    for value in (*graph.inputs, *(c for c in graph.constants if c not in facts.labels)):
        facts.labels[value] = [FIXED] * len(graph.values[value].shape)
    unlabelled = {v: graph.values[v].shape for v in graph.names if v not in facts.labels}
    facts.atoms.reserve(sum(n for shape in unlabelled.values() for n in shape if n > 1))
    for value, shape in unlabelled.items():
        facts.labels[value] = [(facts.atoms.fresh(n),) if n > 1 else FIXED for n in shape]
    facts.data.update(graph.inputs)
    facts.weights.update(graph.names)
    facts.used.update(_used(graph))
    known: dict[Any, tuple[Rule, bool]] = {}
    for position, call in enumerate(graph.calls):
        if call.op not in known:
            known[call.op] = _rule(call.op), call.op.overloadpacket in LAYOUTS
        rule, lays_out = known[call.op]
        if not facts.data.isdisjoint(call.inputs):
            facts.data.update(call.outputs)
        elif lays_out and facts.weights.issuperset(call.inputs):
            facts.weights.update(call.outputs)
        site = Site(facts, graph, position)
        outputs = rule(site)
        if facts.places:
            carry_places(site)
        for value, labels in zip(call.outputs, outputs, strict=False):
            if len(labels) != len(graph.values[value].shape):
                raise InternalError(
                    f"the rule of {call.op} gave {len(labels)} dims to {graph.values[value].shape}"
                )
            facts.labels[value] = labels
            facts.makers[value] = position
    if len(facts.labels) < len(graph.values):  # what a forward made in vain
        facts.labels.update({v.id: [FIXED] * len(v.shape) for v in graph.values if v.id not in facts.labels})
    for value in (v for v in graph.outputs if v in facts.places):
        facts.atoms.freeze(facts.places[value], "network output: it numbers the indices of this dim")
    cause = _CONTRACT if graph.ending is None else _READ.format(graph.ending or "the network")
    for value in graph.outputs:
        for dim in facts.labels[value]:
            if dim:
                facts.atoms.freeze(dim, cause)


def _rule(op: Any) -> Rule:
    found = RULES.get(op.overloadpacket) or RULES.get(op._schema.name)
    return found or (pointwise if is_pointwise(op) else unknown)


_CONTRACT = "network output: its size is part of the contract with the caller"
_READ = "network output: code of {} reads computed values from here on, so its size stays"


def _used(graph: Graph) -> set[int]:
    """Values that matter: what outputs are computed from, what is written in place, and what code reads."""
    found = set(graph.outputs)
    for call in reversed(graph.calls):
        if not call.outputs or call.op._schema.is_mutable or not found.isdisjoint(call.outputs):
            found.update(call.inputs)
            if call.op._schema.is_mutable:
                found.update(call.outputs)
    return found
