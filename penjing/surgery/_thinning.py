"""Two graphs on fewer places, where a network's own code insists on how many it gets.

A position table, an assertion on the picture's size or a token-mixing weight ties such a network to its extent. Its
graph does not: from the first product on, the same places are left out of the original's graph and of the smaller
network's re-trace. Whatever meets these places with all of them (tables, mixing weights, masks) is cut at the same
indices in both, after it has been compared as a whole, and sizes written in the code follow. Only dims that lose
nothing are thinned, only through operators whose reading of places is known here; anything else refuses.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.structure import Structure, kept_size
from penjing.surgery._extents import macs
from penjing.surgery._revival import CHOICES, CONTRACTIONS, Deaf
from penjing.surgery._thinning_rules import Kept, Marks, Refused, State, Written, step

aten = torch.ops.aten
FEW = 4  # places that stay of a dim, and
SHARE = 4  # the least that a dim must have for each of them
MANY = 64  # places where it pays to leave some out
TRIES = 6  # products from which thinning may start, the last
LATE = 3  # before a third of the arithmetic is done


@dataclass(slots=True)
class Thinned:
    """A graph whose sizes are those of fewer places, and what to cut from inputs of its calls before they run.

    Follows the graph's replay: cuts inputs, tells `meets` of each as a whole, `gives` of what each product of few
    places gives, and lets `deaf` hear what products meet.
    """

    graph: Graph
    cuts: dict[int, dict[int, Marks]]
    marks: dict[int, Marks]
    meets: Callable[[int, torch.Tensor], object] | None = None
    gives: Callable[[int, torch.Tensor], object] | None = None
    deaf: Deaf | None = None

    def before(
        self, position: int, call: OpCall, held: Mapping[int, torch.Tensor]
    ) -> dict[int, torch.Tensor]:
        cuts = self.cuts.get(position, {})
        if self.meets is not None:
            for value in cuts:
                self.meets(value, held[value])
        found = {value: _cut(held[value], marks) for value, marks in cuts.items()}
        packet = call.op.overloadpacket
        if self.deaf is not None and (packet in CONTRACTIONS or packet is aten.embedding):
            tensors = {**held, **found}
            self.deaf.meet(packet, [tensors[a.value] if isinstance(a, Ref) else a for a in call.args])
        return found

    def after(self, position: int, call: OpCall, result: torch.Tensor) -> None:
        packet = call.op.overloadpacket
        if self.gives is not None and packet in CONTRACTIONS and self.marks.get(call.outputs[0]):
            self.gives(position, result)
        if self.deaf is not None and packet in CHOICES:
            self.deaf.choose(packet, result, call.args[1])


def _cut(tensor: torch.Tensor, marks: Marks) -> torch.Tensor:
    for dim, kept in marks.items():
        tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
    return tensor


def thinned_alike(structure: Structure, position: int, small: Graph) -> tuple[Thinned, Thinned] | None:
    """Both graphs with the same places left out, from the earliest product where that works; None if it never does."""
    full = structure.traces[position].graph
    if [call.op for call in full.calls] != [call.op for call in small.calls]:
        return None
    places = _Places(structure, position, structure.gone({g.name: range(len(g)) for g in structure.groups}))
    for start, marks in _starts(full, small, places):
        try:
            ours, theirs = (_thinned(graph, graph.calls[start].outputs[0], marks) for graph in (full, small))
        except Refused:
            continue
        if _same(ours, theirs) and places.hold(ours):
            return ours, theirs
    return None


@dataclass(slots=True)
class _Places:
    """Which dims no group could ever shrink."""

    structure: Structure
    position: int
    removable: np.ndarray

    def is_one(self, value: int, dim: int) -> bool:
        labels = self.structure.dims(value, self.position)[dim]
        return not labels or kept_size(labels, self.removable) == len(labels[0])

    def hold(self, thinned: Thinned) -> bool:
        """Whether nothing else is cut anywhere."""
        cut = ((value, d) for cuts in thinned.cuts.values() for value, marks in cuts.items() for d in marks)
        return all(self.is_one(value, d) for value, d in cut)


def twins(full: Thinned, small: Thinned) -> dict[int, int]:
    """Which value of the smaller network stands for what is cut in the original."""
    return {
        value: twin
        for position, cuts in full.cuts.items()
        for value, twin in zip(cuts, small.cuts[position], strict=True)
    }


def _starts(full: Graph, small: Graph, places: _Places) -> Iterator[tuple[int, Marks]]:
    """The first products of what comes in, with the dims of places that may be left out there."""
    fed, tried, spent = set(full.inputs), 0, 0
    total = sum(macs(full, call) for call in full.calls)
    for position, (call, twin) in enumerate(zip(full.calls, small.calls, strict=True)):
        if fed.isdisjoint(call.inputs):
            continue
        fed.update(call.outputs)
        spent += macs(full, call)
        if tried == TRIES or LATE * spent > total:
            return
        if call.op.overloadpacket not in CONTRACTIONS:
            continue
        before, after = full.values[call.outputs[0]].shape, small.values[twin.outputs[0]].shape
        convolved = call.op.overloadpacket is aten.convolution
        dims = range(2, len(before)) if convolved else range(len(before) - 1)
        marks = {
            d: _few(before[d])
            for d in dims
            if before[d] == after[d] >= FEW * SHARE // 2 and places.is_one(call.outputs[0], d)
        }
        if math.prod(before[d] for d in marks) >= MANY:
            yield position, marks
            tried += 1


def _few(size: int) -> Kept:
    """Places from the first to the last, as many as a quarter of them or `FEW`."""
    count = max(FEW, min(FEW * 2, size // (SHARE * FEW)))
    return tuple(np.unique(np.linspace(0, size - 1, count).round().astype(int)).tolist())


def _same(full: Thinned, small: Thinned) -> bool:
    """Whether the same places are left out of every value of both, and of nothing that pruning changes."""
    for before, after in zip(full.graph.calls, small.graph.calls, strict=True):
        for ours, theirs in zip(before.outputs, after.outputs, strict=True):
            marks = full.marks.get(ours, {})
            if marks != small.marks.get(theirs, {}):
                return False
            a, b = full.graph.values[ours].shape, small.graph.values[theirs].shape
            if any(a[d] != b[d] for d in marks):
                return False
    return full.cuts.keys() == small.cuts.keys() and all(
        [*cuts.values()] == [*small.cuts[position].values()] for position, cuts in full.cuts.items()
    )


def _thinned(graph: Graph, start: int, marks: Marks) -> Thinned:
    state, written = State(graph, {start: marks}, start), Written(start)
    calls = list(graph.calls)
    for position, call in enumerate(graph.calls):
        written.follow(call)
        if not any(state.marks.get(value) for value in call.inputs):
            continue
        found = step(state, call)
        for value, marks_there in found.outputs.items():
            state.marks[value] = marks_there
        cuts = {v: missing for v, demand in found.demands.items() if (missing := state.missing(v, demand))}
        if cuts and call.op._schema.is_mutable:
            raise Refused
        if cuts:
            state.cuts[position] = cuts
        if found.args is not None:
            calls[position] = call._replace(args=found.args)
    written.check(graph.outputs)
    return Thinned(replace(graph, calls=tuple(calls)), state.cuts, state.marks)
