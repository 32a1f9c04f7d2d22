"""What each operator reads of places: which must be cut from its inputs, which are left of its outputs.

Places are left out of an operator's inputs alike wherever they meet. What it gives is then told of the same places;
sizes among its arguments follow. An operator without a rule refuses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.surgery._reshapes import runs

aten = torch.ops.aten
Kept = tuple[int, ...]
Marks = dict[int, Kept]  # per dim, the places that stay


class Refused(Exception):
    """An operator whose reading of places is not known, or places that do not meet."""


@dataclass(slots=True)
class State:
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
class Step:
    """What a call asks of its inputs, what its outputs are then, and its arguments where they change."""

    demands: dict[int, Marks]
    outputs: dict[int, Marks]
    args: tuple[Any, ...] | None = None


class Written:
    """What is written into views of the value that thinning starts from: every reader of that value is given a cut
    copy of its own, so that nobody else may read it afterwards.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self._copies = {start: start}  # by view, the first value in the same copy's memory
        self._stale: set[int] = set()

    def follow(self, call: OpCall) -> None:
        self.check(call.inputs)
        if not call.inputs or all(r.alias_info is None for r in call.op._schema.returns):
            return
        copy = self._copies.get(call.inputs[0])
        if copy is None:
            return
        if call.op._schema.is_mutable:
            self._stale.update(value for value, other in self._copies.items() if other != copy)
            self._stale.add(self._start)
        self._copies.update((value, value if copy == self._start else copy) for value in call.outputs)

    def check(self, values: Iterable[int]) -> None:
        if not self._stale.isdisjoint(values):
            raise Refused


Rule = Callable[[State, OpCall], Step]
_RULES: dict[Any, Rule] = {}


def step(state: State, call: OpCall) -> Step:
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


def _one(state: State, call: OpCall) -> tuple[int, Marks, int]:
    """The tensor a call reads first, which alone may be thinned; its marks; its rank."""
    value = call.inputs[0]
    if not isinstance(call.args[0], Ref) or any(state.marks.get(v) for v in call.inputs if v != value):
        raise Refused
    return value, state.marks[value], len(state.shape(value))


def _sizes(state: State, value: int, marks: Marks) -> tuple[int, ...]:
    return tuple(len(marks[d]) if d in marks else n for d, n in enumerate(state.shape(value)))


def _broadcast(state: State, value: int, marks: Marks, shape: Sequence[int]) -> Marks:
    """What marks on a result of `shape` ask of a tensor that is broadcast to it."""
    own = state.shape(value)
    ahead = len(shape) - len(own)
    return {d - ahead: k for d, k in marks.items() if d >= ahead and own[d - ahead] == shape[d]}


def _pointwise(state: State, call: OpCall) -> Step:
    shape, found = state.shape(call.outputs[0]), Marks()
    for value in call.inputs:
        ahead = len(shape) - len(state.shape(value))
        for d, kept in state.marks.get(value, {}).items():
            _put(found, d + ahead, kept)
    demands = {value: _broadcast(state, value, found, shape) for value in call.inputs}
    return Step(demands, {value: found for value in call.outputs if state.shape(value) == shape})


@_rule(
    aten._softmax, aten._log_softmax, aten._safe_softmax, aten.detach, aten.alias, aten._to_copy, aten.clone,
    aten.lift_fresh, aten.zeros_like, aten.ones_like, aten.empty_like, aten.full_like,
)  # fmt: skip
def _alike(state: State, call: OpCall) -> Step:
    value, marks, _ = _one(state, call)
    return Step({value: marks}, {call.outputs[0]: marks})


@_rule(aten.new_zeros, aten.new_ones, aten.new_empty, aten.new_full)
def _anew(state: State, call: OpCall) -> Step:
    value, marks, _ = _one(state, call)
    return Step({value: marks}, {})


@_rule(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias)
def _view(state: State, call: OpCall) -> Step:
    value, marks, _ = _one(state, call)
    found = reshaped(marks, state.shape(value), state.shape(call.outputs[0]))
    sizes = _sizes(state, call.outputs[0], found)
    return Step({value: marks}, {call.outputs[0]: found}, (call.args[0], sizes))


@_rule(aten.unsqueeze, aten.squeeze)
def _ones(state: State, call: OpCall) -> Step:
    value, marks, _ = _one(state, call)
    return Step(
        {value: marks}, {call.outputs[0]: reshaped(marks, state.shape(value), state.shape(call.outputs[0]))}
    )


def reshaped(marks: Marks, old: Sequence[int], new: Sequence[int]) -> Marks:
    """The places that stay after a view; refuses where they are no longer the same along every dim."""
    found: Marks = {}
    for ins, outs in runs(old, new):
        if not any(d in marks for d in ins):
            continue
        stay = [np.array(marks.get(d, range(old[d]))) for d in ins]
        flat = np.ravel_multi_index(np.ix_(*stay), [old[d] for d in ins]).ravel()
        parts = [np.unique(p) for p in np.unravel_index(flat, [new[d] for d in outs])]
        if np.prod([len(p) for p in parts]) != len(flat):
            raise Refused
        found.update({d: tuple(p.tolist()) for d, p in zip(outs, parts, strict=True) if len(p) < new[d]})
    return found


@_rule(aten.expand)
def _expand(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    ahead = len(state.shape(call.outputs[0])) - rank
    found = {d + ahead: kept for d, kept in marks.items()}
    sizes = _sizes(state, call.outputs[0], found)
    return Step({value: marks}, {call.outputs[0]: found}, (call.args[0], sizes, *call.args[2:]))


@_rule(aten.permute, aten.transpose, aten.t)
def _permute(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    order = list(range(rank))
    if call.op.overloadpacket is aten.permute:
        order = [d % rank for d in call.args[1]]
    elif rank > 1:
        a, b = (d % rank for d in (call.args[1:3] if call.op.overloadpacket is aten.transpose else (0, 1)))
        order[a], order[b] = b, a
    return Step({value: marks}, {call.outputs[0]: {order.index(d): kept for d, kept in marks.items()}})


_LETTERS: dict[Any, tuple[str, ...]] = {
    aten.mm: ("mk", "kn", "mn"),
    aten.bmm: ("bmk", "bkn", "bmn"),
    aten.addmm: ("mn", "mk", "kn", "mn"),
    aten.baddbmm: ("bmn", "bmk", "bkn", "bmn"),
}


@_rule(*_LETTERS)
def _product(state: State, call: OpCall) -> Step:
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
    return Step(demands, {call.outputs[0]: {d: found[c] for d, c in enumerate(result) if c in found}})


@_rule(aten.convolution)
def _convolution(state: State, call: OpCall) -> Step:
    """Over places one by one, or with as many after as before if every tap meets one; over channels as a product."""
    value, marks, _ = _one(state, call)
    weight = call.inputs[1]
    kernel, (stride, padding, dilation, transposed, _, groups) = state.shape(weight)[2:], call.args[3:9]
    for axis in (d - 2 for d in marks if d > 1):
        s, p, w = (x[axis if len(x) > 1 else 0] for x in (stride, padding, dilation))
        if transposed or s != 1 or 2 * p != w * (kernel[axis] - 1) or p >= len(marks[axis + 2]):
            raise Refused  # taps further out than the places that stay would meet nothing but padding
    demands = {value: marks}
    if 1 in marks:
        if groups != 1 or transposed:
            raise Refused
        demands[weight] = {1: marks[1]}
    return Step(demands, {call.outputs[0]: {d: kept for d, kept in marks.items() if d != 1}})


@_rule(aten.mean, aten.sum, aten.amax, aten.amin)
def _reduced(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    dims = _arg(call, 1, "dim") or range(rank)
    gone = {d % rank for d in ([dims] if isinstance(dims, int) else dims)}
    stays = [d for d in range(rank) if d not in gone]
    if len(state.shape(call.outputs[0])) == rank:
        found = {d: kept for d, kept in marks.items() if d not in gone}
    else:
        found = {stays.index(d): kept for d, kept in marks.items() if d not in gone}
    return Step({value: marks}, {call.outputs[0]: found})


@_rule(aten.native_layer_norm, aten._fused_rms_norm)
def _normed(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    first = rank - len(call.args[1])
    inner = {d - first: kept for d, kept in marks.items() if d >= first}
    demands = {value: marks, **dict.fromkeys(call.inputs[1:], inner)}
    sizes = tuple(len(inner[d]) if d in inner else n for d, n in enumerate(call.args[1]))
    outer = {d: kept for d, kept in marks.items() if d < first}
    outputs = {call.outputs[0]: marks, **dict.fromkeys(call.outputs[1:], outer)}
    return Step(demands, outputs, (call.args[0], sizes, *call.args[2:]))


@_rule(aten.native_batch_norm, aten._native_batch_norm_legit_no_training)
def _batch_normed(state: State, call: OpCall) -> Step:
    value, marks, _ = _one(state, call)
    if call.op.overloadpacket is aten.native_batch_norm and call.args[5]:
        raise Refused
    channels = {0: marks[1]} if 1 in marks else {}
    return Step({value: marks, **dict.fromkeys(call.inputs[1:], channels)}, {call.outputs[0]: marks})


@_rule(aten.stack)
def _stacked(state: State, call: OpCall) -> Step:
    dim = _arg(call, 1, "dim", 0) % len(state.shape(call.outputs[0]))
    found: Marks = {}
    for ref in call.args[0]:
        for d, kept in state.marks.get(ref.value, {}).items():
            _put(found, d + (d >= dim), kept)
    asked = {d - (d > dim): kept for d, kept in found.items()}
    return Step({ref.value: asked for ref in call.args[0]}, {call.outputs[0]: found})


@_rule(aten.cat)
def _joined(state: State, call: OpCall) -> Step:
    """Parts meet along every dim but the one that they follow each other in."""
    dim = _arg(call, 1, "dim", 0) % len(state.shape(call.outputs[0]))
    across: Marks = {}
    along: list[int] = []
    demands: dict[int, Marks] = {}
    start = 0
    for ref in call.args[0]:
        own, size = state.marks.get(ref.value, {}), state.shape(ref.value)[dim]
        for d, kept in own.items():
            if d != dim:
                _put(across, d, kept)
        demands[ref.value] = {dim: own[dim]} if dim in own else {}
        along += [start + i for i in own.get(dim, range(size))]
        start += size
    demands = {value: asked | across for value, asked in demands.items()}
    return Step(demands, {call.outputs[0]: across | ({dim: tuple(along)} if len(along) < start else {})})


@_rule(aten.select)
def _selected(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    dim, index = _arg(call, 1, "dim", 0) % rank, _arg(call, 2, "index")
    if dim in marks:
        index %= state.shape(value)[dim]
        if index not in marks[dim]:
            raise Refused
        index = marks[dim].index(index)
    found = {d - (d > dim): kept for d, kept in marks.items() if d != dim}
    return Step({value: marks}, {call.outputs[0]: found}, (call.args[0], dim, index))


@_rule(aten.slice)
def _sliced(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    dim = _arg(call, 1, "dim", 0) % rank
    if dim not in marks:
        return Step({value: marks}, {call.outputs[0]: marks})
    start, stop, step = slice(_arg(call, 2, "start"), _arg(call, 3, "end"), _arg(call, 4, "step", 1)).indices(
        state.shape(value)[dim]
    )
    at = [i for i, place in enumerate(marks[dim]) if start <= place < stop]
    inside, size = tuple(marks[dim][i] - start for i in at), max(0, stop - start)
    if step != 1 or len(inside) < min(2, size):
        raise Refused
    found = {d: inside if d == dim else kept for d, kept in marks.items()}
    if len(inside) == size:
        del found[dim]
    first = at[0] if at else 0
    return Step({value: marks}, {call.outputs[0]: found}, (call.args[0], dim, first, first + len(at)))


@_rule(aten.split, aten.split_with_sizes, aten.unbind, aten.unsafe_split, aten.unsafe_split_with_sizes)
def _split(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    unbound = call.op.overloadpacket is aten.unbind
    dim = (_arg(call, 1, "dim", 0) if unbound else _arg(call, 2, "dim", 0)) % rank
    if dim in marks:
        raise Refused
    found = {d - (unbound and d > dim): kept for d, kept in marks.items()}
    return Step({value: marks}, dict.fromkeys(call.outputs, found))


@_rule(aten.embedding)
def _looked_up(state: State, call: OpCall) -> Step:
    table, ids = call.inputs[0], call.inputs[-1]
    if state.marks.get(table):
        raise Refused
    marks = state.marks[ids]
    return Step({ids: marks}, {call.outputs[0]: marks})


@_rule(aten.constant_pad_nd)
def _padded(state: State, call: OpCall) -> Step:
    value, marks, rank = _one(state, call)
    pads = call.args[1]
    touched = {rank - 1 - i // 2 for i, amount in enumerate(pads) if amount}
    if touched & marks.keys():
        raise Refused
    return Step({value: marks}, {call.outputs[0]: marks})
