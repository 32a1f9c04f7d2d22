"""Smaller inputs for a numeric proof: the same computation on fewer pixels, frames and examples.

What pruning changes (channels, heads, widths) does not depend on how many places a network is applied to. So the
float64 comparison of a heavy network may run on a smaller picture, provided that both networks then do exactly what
they do in full: the same operators on the same values, the same sizes in every dim that a group may shrink (and in
every frozen one of what is computed without the input: tables are read alike), no dim collapsed to a single place, and,
wherever pruning changes an integer of the code, the same pair of integers.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from penjing.core import PenjingError
from penjing.core._graph import Graph, OpCall
from penjing.structure import Structure, Trace, kept_size, map_tensors, tensors_of, trace_forward
from penjing.surgery._constants import aligned
from penjing.surgery._precision import integers

aten = torch.ops.aten
WORTH = 5_000_000  # multiply-accumulates from which a run on fewer places pays
HEAVY = 300_000_000  # from which a trace on fewer places may pay too, and how many of them per call:
PER_CALL = 4_000_000  # it costs time by the call
THIN = 100_000_000  # from which leaving places out of both graphs may pay, and how many of them per call
THIN_PER_CALL = 1_000_000
SLOW = 4  # a grouped convolution in float64 takes this much longer than its arithmetic
SHRINKS = (4, 2)
MULTIPLE = 32
LONG = 1024  # from here on the last dim of a signal counts as places


def is_heavy(graph: Graph) -> bool:
    return sum(macs(graph, call) for call in graph.calls) > max(HEAVY, PER_CALL * len(graph.calls))


def is_worth_thinning(graph: Graph) -> bool:
    return sum(macs(graph, call) for call in graph.calls) > max(THIN, THIN_PER_CALL * len(graph.calls))


def macs(graph: Graph, call: OpCall) -> int:
    """Multiply-accumulates of products and convolutions, by the time they take; nothing else counts."""
    packet = call.op.overloadpacket
    out = math.prod(graph.values[call.outputs[0]].shape) if call.outputs else 0
    if packet is aten.convolution:
        weight = graph.values[call.inputs[1]].shape
        return out * math.prod(weight[1:]) * (SLOW if call.args[8] > 1 else 1)
    if packet in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
        left = call.args[0 if packet in (aten.mm, aten.bmm) else 1]
        return out * graph.values[left.value].shape[-1]
    return 0


def smaller_examples(graph: Graph, example: Any) -> Iterator[Any]:
    """Examples with fewer places, smallest first; none for a light network, or where a dim would become one place."""
    if sum(macs(graph, call) for call in graph.calls) < WORTH:
        return
    made = (graph.values[v].shape for call in graph.calls for v in call.outputs)
    least = min((n for shape in made if len(shape) > 3 for n in shape[2:] if n > 1), default=math.inf)
    tried: list[list[int]] = []
    for share in SHRINKS:
        smaller = _shrunk(example, share)
        sizes = [t.numel() for t in tensors_of(smaller)]
        if smaller is not None and sizes not in tried and least > share:
            tried.append(sizes)
            yield smaller


def labelled_dims(structure: Structure, position: int) -> dict[int, tuple[bool, ...]]:
    """Per value, which of its dims a group or a frozen cause speaks of."""
    return {v: tuple(bool(d) for d in dims) for v, dims in structure.facts[position].labels.items()}


def grouped_dims(structure: Structure, position: int) -> dict[int, tuple[bool, ...]]:
    """Per value, which of its dims a group may shrink; of values that no input feeds, frozen dims as well."""
    graph, labelled = structure.traces[position].graph, labelled_dims(structure, position)
    removable = structure.gone({g.name: range(len(g)) for g in structure.groups})
    fed = set(graph.inputs)
    for call in graph.calls:
        if not fed.isdisjoint(call.inputs):
            fed.update(call.outputs)
    return {
        value: tuple(bool(d) and kept_size(d, removable) < len(d[0]) for d in structure.dims(value, position))
        if value in fed and any(marks)
        else marks
        for value, marks in labelled.items()
    }


def traced_on(
    base: nn.Module, slim: nn.Module, structure: Structure, position: int, retraced: Trace, smaller: Any
) -> Trace | None:
    """The original's trace on a smaller example, if both networks do there what they do in full."""
    full = structure.traces[position]
    try:
        ours = trace_forward(base, smaller)
        same = _same_computation(full.graph, ours.graph, labelled_dims(structure, position))
        return ours if same and _same_integers(slim, full, retraced, ours, smaller) else None
    except (PenjingError, RuntimeError, ValueError, IndexError, TypeError):
        return None


def _shrunk(example: Any, share: int) -> Any | None:
    """Pictures, volumes and long signals cut to a share of each extent, batches to two; None if nothing shrinks."""
    tensors = tensors_of(example)
    batch = {t.shape[0] for t in tensors if t.dim()}
    cut = min(2, *batch) if len(batch) == 1 else None

    def smaller(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() and cut is not None:
            tensor = tensor.narrow(0, 0, cut)
        if not tensor.is_floating_point():
            return tensor
        first = 2 if tensor.dim() > 3 else tensor.dim() - 1
        for dim in range(first, tensor.dim()):
            if dim > 0 and (tensor.dim() > 3 or tensor.shape[dim] >= LONG):
                tensor = tensor.narrow(dim, 0, _extent(tensor.shape[dim], share))
        return tensor

    found = map_tensors(smaller, example)
    sizes = [t.numel() for t in tensors_of(found)]
    return found if sizes != [t.numel() for t in tensors] else None


def _extent(size: int, share: int) -> int:
    """A share of a size, a multiple of 32 where the size is one."""
    step = MULTIPLE if size % MULTIPLE == 0 else 1
    return min(size, max(step, math.ceil(size / share / step) * step))


def _same_computation(full: Graph, small: Graph, labelled: dict[int, tuple[bool, ...]]) -> bool:
    """Whether a graph runs the same ops on the same values; labelled dims keep their size, no other becomes 1."""
    if (
        len(full.calls) != len(small.calls)
        or len(full.values) != len(small.values)
        or (full.inputs, full.outputs, full.constants) != (small.inputs, small.outputs, small.constants)
        or full.states != small.states
    ):
        return False
    for before, after in zip(full.calls, small.calls, strict=True):
        if before.op is not after.op or before.inputs != after.inputs or before.outputs != after.outputs:
            return False
    for before, after in zip(full.values, small.values, strict=True):
        fixed = labelled.get(before.id, ())
        if before.dtype != after.dtype or len(before.shape) != len(after.shape):
            return False
        for dim, (n, m) in enumerate(zip(before.shape, after.shape, strict=True)):
            if (n == m) if dim < len(fixed) and fixed[dim] else (n > 1) == (m > 1):
                continue
            return False
    return True


def _same_integers(slim: nn.Module, base: Trace, retraced: Trace, small_base: Trace, smaller: Any) -> bool:
    """Whether the integers that pruning changes in full change alike on the smaller example, and no others do."""
    pairs = list(aligned(base, retraced))
    full = list(_integers(pairs, base, retraced))
    if all(a == b for a, b in full):
        return True
    small_slim = trace_forward(slim, smaller)
    if not _same_computation(retraced.graph, small_slim.graph, {}):
        return False
    small = _integers(pairs, small_base, small_slim)
    return all(_changes_alike(in_full, on_fewer) for in_full, on_fewer in zip(full, small, strict=True))


def _integers(
    pairs: Iterable[tuple[int, int]], ours: Trace, theirs: Trace
) -> Iterator[tuple[list[int], list[int]]]:
    for i, j in pairs:
        a, b = ours.graph.calls[i], theirs.graph.calls[j]
        yield integers(a.args, a.kwargs), integers(b.args, b.kwargs)


def _changes_alike(full: tuple[list[int], list[int]], fewer: tuple[list[int], list[int]]) -> bool:
    if len({len(found) for found in (*full, *fewer)}) > 1:
        return full == fewer
    places = zip(*full, *fewer, strict=True)
    return all((a == b and c == d) or (a, b) == (c, d) for a, b, c, d in places)
