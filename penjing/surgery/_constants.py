"""Numbers in a network's code that change with its sizes: where a re-trace multiplies by another constant.

An attention scale 1/sqrt(head_dim) computed in the forward, or a division by a channel count, changes the function
when that size shrinks. Such places are found by comparing the numbers of two aligned traces.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.structure import Trace
from penjing.surgery._precision import DOUBLE
from penjing.surgery._replay import fill

aten = torch.ops.aten
Numbers = Mapping[int, float]

MULTIPLIES = {aten.mul, aten.mul_}
DIVIDES = {aten.div, aten.div_}
SCALED_PRODUCTS = {aten.addmm, aten.baddbmm, aten.addbmm, aten.baddbmm_, aten.addmm_}
COPIES = {aten.clone.default, aten.alias.default}
LAYOUTS = {
    aten.view, aten._unsafe_view, aten.reshape, aten.permute, aten.transpose, aten.t, aten.unsqueeze, aten.squeeze,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Site:
    """Call `call` must see `value` scaled by `factor`: its own constant is 1 / `factor` of the original's."""

    call: int
    value: int
    factor: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A call whose numbers differ; `sites` are the ways to make up for it, none if there is no way."""

    before: OpCall
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    sites: tuple[Site, ...]


def _computations(calls: Sequence[OpCall]) -> list[tuple[int, OpCall]]:
    """The calls that neither copy nor lay out anew: which of those code runs may depend on a size being 1."""
    return [(i, call) for i, call in enumerate(calls) if _computes(call.op)]


@functools.cache
def _computes(op: Any) -> bool:
    return op not in COPIES and op.overloadpacket not in LAYOUTS


@functools.cache
def _scales(op: Any) -> bool:
    return op.overloadpacket in MULTIPLIES or op.overloadpacket in DIVIDES


def aligned(before: Trace, after: Trace) -> Iterator[tuple[int, int]]:
    """Call numbers of two traces that stand for the same computation."""
    pairs = zip(_computations(before.graph.calls), _computations(after.graph.calls), strict=False)
    yield from ((i, j) for (i, _), (j, _) in pairs)


def differing_constants(before: Trace, after: Trace) -> Iterator[Difference]:
    """Every call of two aligned traces that computes with other numbers than its twin."""
    pairs = list(zip(_computations(before.graph.calls), _computations(after.graph.calls), strict=False))
    old, new = before.graph, after.graph
    same = all(_numbers(old, a, {}) == _numbers(new, b, {}) for (_, a), (_, b) in pairs)
    if same and _literals(before) == _literals(after):
        return
    known_before, known_after = known_numbers(before), known_numbers(after)
    for (position, ours), (_, theirs) in pairs:
        a, b = _numbers(old, ours, known_before), _numbers(new, theirs, known_after)
        known = bool(ours.outputs) and all(v in known_before for v in ours.outputs)
        if a != b and not known:
            yield Difference(ours, a, b, tuple(_sites(position, ours, known_before, a, b)))


def _literals(trace: Trace) -> list[float]:
    held = (t for t in trace.constants.values() if t.numel() == 1 and not (t.is_meta or t.is_complex()))
    return [t.item() for t in held]


def known_numbers(trace: Trace) -> dict[int, float]:
    """Values that hold one number which the code alone decides: literals, and arithmetic on them in float64."""
    graph = trace.graph
    held = {v: DOUBLE.cast(t) for v, t in trace.constants.items() if t.numel() == 1 and not t.is_meta}
    for call in graph.calls:
        single = len(call.outputs) == 1 and math.prod(graph.values[call.outputs[0]].shape) == 1
        if not single or any(v not in held for v in call.inputs) or not (call.inputs or _is_literal(call)):
            continue
        found = _evaluate(call, held)
        if found is not None:
            held[call.outputs[0]] = found
    return {v: float(t) for v, t in held.items() if not t.is_complex()}  # type: ignore[arg-type]


def _is_literal(call: OpCall) -> bool:
    return call.op.overloadpacket in (aten.full, aten.scalar_tensor)


def _evaluate(call: OpCall, held: Mapping[int, torch.Tensor]) -> torch.Tensor | None:
    cpu = torch.device("cpu")
    args = [fill(a, held, cpu, DOUBLE) for a in call.args]
    kwargs = {k: fill(v, held, cpu, DOUBLE) for k, v in call.kwargs.items()}
    if call.op._schema.is_mutable:
        args[0] = args[0].clone()
    try:
        found = call.op(*args, **kwargs)
        if isinstance(found, torch.Tensor) and found.dtype in DOUBLE.dtypes:  # computed from integers
            found = call.op(*(a.double() if isinstance(a, torch.Tensor) else a for a in args), **kwargs)
    except (RuntimeError, IndexError):
        return None
    return found if isinstance(found, torch.Tensor) and not (found.is_meta or found.is_complex()) else None


def _numbers(graph: Graph, call: OpCall, known: Numbers) -> tuple[float, ...]:
    """The floats a call computes with; where it multiplies floats, integers and known one-element tensors too."""
    factors = _scales(call.op) and _gives_floats(graph, call)
    found: list[float] = []
    for item in (*call.args, *call.kwargs.values()):
        if isinstance(item, float) or (factors and type(item) is int):
            found.append(float(item))
        elif factors and isinstance(item, Ref) and item.value in known:
            found.append(known[item.value])
    return tuple(found)


def _gives_floats(graph: Graph, call: OpCall) -> bool:
    return all("float" in graph.values[v].dtype or "complex" in graph.values[v].dtype for v in call.outputs)


def _sites(
    position: int, call: OpCall, known: Numbers, ours: Sequence[float], theirs: Sequence[float]
) -> Iterator[Site]:
    packet = call.op.overloadpacket
    if len(ours) != 1 or len(theirs) != 1 or not all(math.isfinite(x) and x for x in (*ours, *theirs)):
        return
    ratio = ours[0] / theirs[0]
    if packet in SCALED_PRODUCTS and _only_alpha(call):
        yield from (Site(position, ref.value, ratio) for ref in call.args[1:3])
    elif packet in MULTIPLIES:
        yield from (Site(position, v, ratio) for v in call.inputs if v not in known)
    elif packet in DIVIDES and call.kwargs.get("rounding_mode") is None:
        yield from (Site(position, v, 1 / ratio) for v in call.inputs[:1] if v not in known)


def _only_alpha(call: OpCall) -> bool:
    return isinstance(call.kwargs.get("alpha"), float) and not isinstance(call.kwargs.get("beta"), float)
