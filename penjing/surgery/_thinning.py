"""Two graphs on fewer places, where a network's own code insists on how many it gets.

A position table, an assertion on the picture's size or a token-mixing weight ties such a network to its extent. Its
graph does not: from the first product on, the same places are left out of the original's graph and of the smaller
network's re-trace. Whatever meets these places with all of them (tables, mixing weights, masks) is cut at the same
indices in both, and sizes written in the code follow. Only dims that lose nothing are thinned, only through operators
whose reading of places is known here; anything else refuses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.surgery._revival import CONTRACTIONS, Deaf

aten = torch.ops.aten
Kept = tuple[int, ...]
Marks = dict[int, Kept]  # per dim, the places that stay
FEW = 4  # places that stay of a dim, and
SHARE = 4  # the least that a dim must have for each of them
TRIES = 6  # products from which thinning may start


class Refused(Exception):
    """An operator whose reading of places is not known, or places that do not meet."""


@dataclass(slots=True)
class Thinned:
    """A graph whose sizes are those of fewer places, and what to cut from inputs of its calls before they run.

    Follows the graph's replay: cuts inputs, and hears whether contractions met nothing but zeros.
    """

    graph: Graph
    cuts: dict[int, dict[int, Marks]]
    marks: dict[int, Marks]
    deaf: Deaf | None = None

    def before(self, position: int, call: OpCall, held: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        cuts = self.cuts.get(position, {})
        found = {value: _cut(held[value], marks) for value, marks in cuts.items()}
        packet = call.op.overloadpacket
        if self.deaf is not None and (packet in CONTRACTIONS or packet is aten.embedding):
            tensors = {**held, **found}
            self.deaf.meet(packet, [tensors[a.value] if isinstance(a, Ref) else a for a in call.args])
        return found

    def after(self, position: int, call: OpCall, result: torch.Tensor) -> None:
        """Nothing to do."""


def _cut(tensor: torch.Tensor, marks: Marks) -> torch.Tensor:
    for dim, kept in marks.items():
        tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
    return tensor


def thinned_alike(full: Graph, small: Graph) -> tuple[Thinned, Thinned] | None:
    """Both graphs with the same places left out, from the earliest product where that works; None if it never does."""
    if [call.op for call in full.calls] != [call.op for call in small.calls]:
        return None
    for position, marks in _starts(full, small):
        try:
            pair = tuple(_thinned(graph, graph.calls[position].outputs[0], marks) for graph in (full, small))
        except Refused:
            continue
        if _same(*pair):
            return pair
    return None


def _starts(full: Graph, small: Graph) -> Iterator[tuple[int, Marks]]:
    """The first products of what comes in, with the dims of places that may be left out there."""
    fed, tried = set(full.inputs), 0
    for position, (call, twin) in enumerate(zip(full.calls, small.calls, strict=True)):
        if fed.isdisjoint(call.inputs):
            continue
        fed.update(call.outputs)
        if call.op.overloadpacket not in CONTRACTIONS:
            continue
        before, after = full.values[call.outputs[0]].shape, small.values[twin.outputs[0]].shape
        convolved = call.op.overloadpacket is aten.convolution
        places = range(2, len(before)) if convolved else range(len(before) - 1)
        marks = {d: _few(before[d]) for d in places if before[d] == after[d] >= FEW * SHARE // 2}
        if marks:
            yield position, marks
            tried += 1
        if tried == TRIES:
            return


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
    return all(
        [*cuts.values()] == [*small.cuts.get(position, {}).values()] for position, cuts in full.cuts.items()
    )


def _thinned(graph: Graph, start: int, marks: Marks) -> Thinned:
    state = _State(graph, {start: marks}, start)
    calls = list(graph.calls)
    for position, call in enumerate(graph.calls):
        if not any(state.marks.get(value) for value in call.inputs):
            continue
        step = _step(state, call)
        for value, marks_there in step.outputs.items():
            state.marks[value] = marks_there
        cuts = {v: found for v, demand in step.demands.items() if (found := state.missing(v, demand))}
        if cuts and call.op._schema.is_mutable:
            raise Refused
        if cuts:
            state.cuts[position] = cuts
        if step.args is not None:
            calls[position] = replace(call, args=step.args)
    return Thinned(replace(graph, calls=tuple(calls)), state.cuts, state.marks)


@dataclass(slots=True)
class _State:
    """What is thinned so far. The value that thinning starts from is whole in memory."""

    graph: Graph
    marks: dict[int, Marks]
    start: int
    cuts: dict[int, dict[int, Marks]] = field(default_factory=dict)

    def shape(self, value: int) -> tuple[int, ...]:
        return self.graph.values[value].shape

    def missing(self, value: int, demand: Marks) -> Marks:
        """What of a demand is not cut yet; refuses one that contradicts what is."""
        own = self.marks.get(value, {})
        if any(own.get(d, kept) != kept for d, kept in demand.items()) or own.keys() - demand.keys():
            raise Refused
        return demand if value == self.start else {d: kept for d, kept in demand.items() if d not in own}


@dataclass(slots=True)
class _Step:
    """What a call asks of its inputs, what its outputs are then, and its arguments where they change."""

    demands: dict[int, Marks]
    outputs: dict[int, Marks]
    args: tuple[Any, ...] | None = None


Rule = Callable[[_State, OpCall], _Step]
_RULES: dict[Any, Rule] = {}


def _step(state: _State, call: OpCall) -> _Step:
    rule = _RULES.get(call.op.overloadpacket)
    if rule is None:
        if torch.Tag.pointwise not in call.op.tags:
            raise Refused
        rule = _pointwise
    return rule(state, call)


def _rule(*packets: Any) -> Callable[[Rule], Rule]:
    def added(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(packets, rule))
        return rule

    return added


def _put(found: dict[Any, Kept], key: Any, kept: Kept) -> None:
    if found.setdefault(key, kept) != kept:
        raise Refused


def _arg(call: OpCall, position: int, name: str, default: Any = None) -> Any:
    return call.args[position] if position < len(call.args) else call.kwargs.get(name, default)


def _one(state: _State, call: OpCall) -> tuple[int, Marks, int]:
    """The tensor a call reads first, which alone may be thinned; its marks; its rank."""
    value = call.inputs[0]
    if not isinstance(call.args[0], Ref) or any(state.marks.get(v) for v in call.inputs if v != value):
        raise Refused
    return value, state.marks[value], len(state.shape(value))


def _sizes(state: _State, value: int, marks: Marks) -> tuple[int, ...]:
    return tuple(len(marks[d]) if d in marks else n for d, n in enumerate(state.shape(value)))


def _broadcast(state: _State, value: int, marks: Marks, shape: Sequence[int]) -> Marks:
    """What marks on a result of `shape` ask of a tensor that is broadcast to it."""
    own = state.shape(value)
    ahead = len(shape) - len(own)
    return {d - ahead: k for d, k in marks.items() if d >= ahead and own[d - ahead] == shape[d]}


def _pointwise(state: _State, call: OpCall) -> _Step:
    shape, found = state.shape(call.outputs[0]), Marks()
    for value in call.inputs:
        ahead = len(shape) - len(state.shape(value))
        for d, kept in state.marks.get(value, {}).items():
            _put(found, d + ahead, kept)
    demands = {value: _broadcast(state, value, found, shape) for value in call.inputs}
    return _Step(demands, {value: found for value in call.outputs if state.shape(value) == shape})


@_rule(
    aten._softmax, aten._log_softmax, aten._safe_softmax, aten.detach, aten.alias, aten._to_copy, aten.clone,
    aten.lift_fresh,
)  # fmt: skip
def _alike(state: _State, call: OpCall) -> _Step:
    value, marks, _ = _one(state, call)
    return _Step({value: marks}, {call.outputs[0]: marks})


@_rule(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias)
def _view(state: _State, call: OpCall) -> _Step:
    value, marks, _ = _one(state, call)
    found = reshaped(marks, state.shape(value), state.shape(call.outputs[0]))
    sizes = _sizes(state, call.outputs[0], found)
    return _Step({value: marks}, {call.outputs[0]: found}, (call.args[0], sizes))


@_rule(aten.unsqueeze, aten.squeeze)
def _ones(state: _State, call: OpCall) -> _Step:
    value, marks, _ = _one(state, call)
    return _Step(
        {value: marks}, {call.outputs[0]: reshaped(marks, state.shape(value), state.shape(call.outputs[0]))}
    )


def reshaped(marks: Marks, old: Sequence[int], new: Sequence[int]) -> Marks:
    """The places that stay after a view; refuses where they are no longer the same along every dim."""
    found: Marks = {}
    for ins, outs in _runs(old, new):
        if not any(d in marks for d in ins):
            continue
        stay = [np.array(marks.get(d, range(old[d]))) for d in ins]
        flat = np.ravel_multi_index(np.ix_(*stay), [old[d] for d in ins]).ravel()
        parts = [np.unique(p) for p in np.unravel_index(flat, [new[d] for d in outs])]
        if np.prod([len(p) for p in parts]) != len(flat):
            raise Refused
        found.update({d: tuple(p.tolist()) for d, p in zip(outs, parts, strict=True) if len(p) < new[d]})
    return found


def _runs(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Dims of both shapes that hold the same numbers in the same order, in the shortest runs; without those of 1."""
    a, b = [i for i, n in enumerate(old) if n != 1], [i for i, n in enumerate(new) if n != 1]
    i = j = 0
    while i < len(a) and j < len(b):
        ins, outs, left, right = [a[i]], [b[j]], old[a[i]], new[b[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                ins.append(a[i])
                left, i = left * old[a[i]], i + 1
            else:
                outs.append(b[j])
                right, j = right * new[b[j]], j + 1
        yield ins, outs


@_rule(aten.expand)
def _expand(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    ahead = len(state.shape(call.outputs[0])) - rank
    found = {d + ahead: kept for d, kept in marks.items()}
    sizes = _sizes(state, call.outputs[0], found)
    return _Step({value: marks}, {call.outputs[0]: found}, (call.args[0], sizes, *call.args[2:]))


@_rule(aten.permute, aten.transpose, aten.t)
def _permute(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    order = list(range(rank))
    if call.op.overloadpacket is aten.permute:
        order = [d % rank for d in call.args[1]]
    elif rank > 1:
        a, b = (d % rank for d in (call.args[1:3] if call.op.overloadpacket is aten.transpose else (0, 1)))
        order[a], order[b] = b, a
    return _Step({value: marks}, {call.outputs[0]: {order.index(d): kept for d, kept in marks.items()}})


_LETTERS: dict[Any, tuple[str, ...]] = {
    aten.mm: ("mk", "kn", "mn"),
    aten.bmm: ("bmk", "bkn", "bmn"),
    aten.addmm: ("mn", "mk", "kn", "mn"),
    aten.baddbmm: ("bmn", "bmk", "bkn", "bmn"),
}


@_rule(*_LETTERS)
def _product(state: _State, call: OpCall) -> _Step:
    *letters, result = _LETTERS[call.op.overloadpacket]
    operands = [arg.value for arg in call.args[: len(letters)]]
    found: dict[str, Kept] = {}
    for value, term in zip(operands, letters, strict=True):
        for d, kept in state.marks.get(value, {}).items():
            _put(found, term[d - len(state.shape(value)) + len(term)], kept)
    demands: dict[int, Marks] = {}
    for value, term in zip(operands, letters, strict=True):
        shape, ahead = state.shape(value), len(term) - len(state.shape(value))
        asked = {d: found[term[d + ahead]] for d, n in enumerate(shape) if term[d + ahead] in found and n > 1}
        if demands.setdefault(value, asked) != asked:
            raise Refused
    return _Step(demands, {call.outputs[0]: {d: found[c] for d, c in enumerate(result) if c in found}})


@_rule(aten.convolution)
def _convolution(state: _State, call: OpCall) -> _Step:
    """Over places one by one, or with as many places after as before; over channels as a product."""
    value, marks, _ = _one(state, call)
    weight = call.inputs[1]
    kernel, (stride, padding, dilation, transposed, _, groups) = state.shape(weight)[2:], call.args[3:9]
    for axis in (d - 2 for d in marks if d > 1):
        s, p, w = (x[axis if len(x) > 1 else 0] for x in (stride, padding, dilation))
        if transposed or s != 1 or 2 * p != w * (kernel[axis] - 1):
            raise Refused
    demands = {value: marks}
    if 1 in marks:
        if groups != 1 or transposed:
            raise Refused
        demands[weight] = {1: marks[1]}
    return _Step(demands, {call.outputs[0]: {d: kept for d, kept in marks.items() if d != 1}})


@_rule(aten.mean, aten.sum, aten.amax, aten.amin)
def _reduced(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    dims = _arg(call, 1, "dim") or range(rank)
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    stays = [d for d in range(rank) if d not in gone]
    if len(state.shape(call.outputs[0])) == rank:
        found = {d: kept for d, kept in marks.items() if d not in gone}
    else:
        found = {stays.index(d): kept for d, kept in marks.items() if d not in gone}
    return _Step({value: marks}, {call.outputs[0]: found})


@_rule(aten.native_layer_norm, aten._fused_rms_norm)
def _normed(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    first = rank - len(call.args[1])
    inner = {d - first: kept for d, kept in marks.items() if d >= first}
    demands = {value: marks, **dict.fromkeys(call.inputs[1:], inner)}
    sizes = tuple(len(inner[d]) if d in inner else n for d, n in enumerate(call.args[1]))
    outer = {d: kept for d, kept in marks.items() if d < first}
    outputs = {call.outputs[0]: marks, **dict.fromkeys(call.outputs[1:], outer)}
    return _Step(demands, outputs, (call.args[0], sizes, *call.args[2:]))


@_rule(aten.native_batch_norm, aten._native_batch_norm_legit_no_training)
def _batch_normed(state: _State, call: OpCall) -> _Step:
    value, marks, _ = _one(state, call)
    if call.op.overloadpacket is aten.native_batch_norm and call.args[5]:
        raise Refused
    channels = {0: marks[1]} if 1 in marks else {}
    return _Step({value: marks, **dict.fromkeys(call.inputs[1:], channels)}, {call.outputs[0]: marks})


@_rule(aten.cat, aten.stack)
def _joined(state: _State, call: OpCall) -> _Step:
    rank = len(state.shape(call.outputs[0]))
    dim = _arg(call, 1, "dim", 0) % rank
    stacked = call.op.overloadpacket is aten.stack
    found, along, start, some = Marks(), list[int](), 0, False
    for ref in call.args[0]:
        for d, kept in state.marks.get(ref.value, {}).items():
            if stacked or d != dim:
                _put(found, d + (stacked and d >= dim), kept)
        if not stacked:
            size, own = state.shape(ref.value)[dim], state.marks.get(ref.value, {}).get(dim)
            along += [start + i for i in (range(size) if own is None else own)]
            start, some = start + size, some or own is not None
    demands: dict[int, Marks] = {}
    for ref in call.args[0]:
        own = {dim: k for d, k in state.marks.get(ref.value, {}).items() if d == dim and not stacked}
        demands[ref.value] = {d - (stacked and d > dim): kept for d, kept in found.items()} | own
    return _Step(demands, {call.outputs[0]: found | ({dim: tuple(along)} if some else {})})


@_rule(aten.select)
def _selected(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    dim, index = _arg(call, 1, "dim", 0) % rank, _arg(call, 2, "index")
    if dim in marks:
        index %= state.shape(value)[dim]
        if index not in marks[dim]:
            raise Refused
        index = marks[dim].index(index)
    found = {d - (d > dim): kept for d, kept in marks.items() if d != dim}
    return _Step({value: marks}, {call.outputs[0]: found}, (call.args[0], dim, index))


@_rule(aten.slice)
def _sliced(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    dim = _arg(call, 1, "dim", 0) % rank
    if dim not in marks:
        return _Step({value: marks}, {call.outputs[0]: marks})
    start, stop, step = slice(_arg(call, 2, "start"), _arg(call, 3, "end"), _arg(call, 4, "step", 1)).indices(
        state.shape(value)[dim]
    )
    at = [i for i, place in enumerate(marks[dim]) if start <= place < stop]
    inside = tuple(marks[dim][i] - start for i in at)
    if step != 1 or len(inside) < 2:
        raise Refused
    found = {d: inside if d == dim else kept for d, kept in marks.items()}
    if len(inside) == stop - start:
        del found[dim]
    return _Step({value: marks}, {call.outputs[0]: found}, (call.args[0], dim, at[0], at[-1] + 1))


@_rule(aten.split, aten.split_with_sizes, aten.unbind, aten.unsafe_split, aten.unsafe_split_with_sizes)
def _split(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    unbound = call.op.overloadpacket is aten.unbind
    dim = (_arg(call, 1, "dim", 0) if unbound else _arg(call, 2, "dim", 0)) % rank
    if dim in marks:
        raise Refused
    found = {d - (unbound and d > dim): kept for d, kept in marks.items()}
    return _Step({value: marks}, dict.fromkeys(call.outputs, found))


@_rule(aten.embedding)
def _looked_up(state: _State, call: OpCall) -> _Step:
    table, ids = call.inputs[0], call.inputs[-1]
    if state.marks.get(table):
        raise Refused
    marks = state.marks[ids]
    return _Step({ids: marks}, {call.outputs[0]: marks})


@_rule(aten.constant_pad_nd)
def _padded(state: _State, call: OpCall) -> _Step:
    value, marks, rank = _one(state, call)
    pads = call.args[1]
    touched = {rank - 1 - i // 2 for i, amount in enumerate(pads) if amount}
    if touched & marks.keys():
        raise Refused
    return _Step({value: marks}, {call.outputs[0]: marks})
