"""The original's graph on fewer places, read off the smaller network's own run there.

The smaller network ran the calls of its re-trace, with other integers only where the re-trace has the original's: so
does the original's graph then. Nothing has to be traced anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from penjing.core._graph import OpCall, Value
from penjing.structure import Trace
from penjing.surgery._precision import Ran, integers

aten = torch.ops.aten
_IDLE = {aten.detach, aten.alias, aten.as_strided_}  # a run on real tensors may have more or fewer of these
Shape = tuple[int, ...]


def on_fewer_places(
    full: Trace, retraced: Trace, ran: Sequence[Ran], labelled: Mapping[int, Sequence[bool]]
) -> Trace | None:
    """The trace of the original where its smaller network ran `ran`; None unless the smaller network did there what
    it does in full: same ops, same sizes of labelled dims, no other dim collapsed to one place, and the same integers
    wherever pruning changes one.
    """
    ours, theirs = _busy(full.graph.calls), _busy(retraced.graph.calls)
    seen = [run for run in ran if run.op.overloadpacket not in _IDLE]
    if not len(ours) == len(theirs) == len(seen):
        return None
    calls, values = list(full.graph.calls), list(full.graph.values)
    read = {*full.graph.outputs, *(value for call in calls for value in call.inputs)}
    for position, other, run in zip(ours, theirs, seen, strict=True):
        before, after = calls[position], retraced.graph.calls[other]
        found = _integers_here(before, after, run)
        if not before.op is after.op is run.op or found is None or len(before.outputs) != len(run.shapes):
            return None
        if found:
            calls[position] = _with_integers(before, iter(found))
        for value, cut, shape in zip(before.outputs, after.outputs, run.shapes, strict=True):
            made = _value_here(
                values[value], retraced.graph.values[cut].shape, shape, labelled.get(value, ())
            )
            if made is not None:
                values[value] = made
            elif value in read:
                return None
    return replace(full, graph=replace(full.graph, calls=tuple(calls), values=tuple(values)))


def _busy(calls: Sequence[OpCall]) -> list[int]:
    return [i for i, call in enumerate(calls) if call.op.overloadpacket not in _IDLE]


def _integers_here(before: OpCall, after: OpCall, run: Ran) -> list[int] | None:
    """The original's integers here, none if as in full; None where pruning changes one that the place changes too."""
    was, cut = integers(before.args, before.kwargs), integers(after.args, after.kwargs)
    if run.integers == cut:
        return []
    if not len(was) == len(cut) == len(run.integers):
        return None
    if any(a != b and b != here for a, b, here in zip(was, cut, run.integers, strict=True)):
        return None
    return [here if a == b else a for a, b, here in zip(was, cut, run.integers, strict=True)]


def _value_here(value: Value, cut: Shape, here: Shape, labelled: Sequence[bool]) -> Value | None:
    if not len(value.shape) == len(cut) == len(here):
        return None
    for dim, (n, m) in enumerate(zip(cut, here, strict=True)):
        of_a_group = dim < len(labelled) and labelled[dim]
        if not (n == m if of_a_group else (n > 1) == (m > 1) and n == value.shape[dim]):
            return None
    kept = [a if a != n else m for a, n, m in zip(value.shape, cut, here, strict=True)]
    return value._replace(shape=tuple(kept))


def _with_integers(call: OpCall, numbers: Iterator[int]) -> OpCall:
    """The call with these integers in the place of its own, in their order."""
    args = tuple(_filled(a, numbers) for a in call.args)
    return call._replace(args=args, kwargs={k: _filled(v, numbers) for k, v in call.kwargs.items()})


def _filled(item: Any, numbers: Iterator[int]) -> Any:
    if isinstance(item, int) and not isinstance(item, bool):
        return next(numbers)
    return tuple(_filled(i, numbers) for i in item) if isinstance(item, (tuple, list)) else item
