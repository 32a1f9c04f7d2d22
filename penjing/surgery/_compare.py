"""The strict re-trace: the same ops, every predicted shape, the original's constants."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch

from penjing.core._graph import Graph, OpCall
from penjing.core._plan import Plan
from penjing.structure import Structure, Trace
from penjing.surgery._constants import COPIES, LAYOUTS, differing_constants
from penjing.surgery._rescale import rescaling, same_scalings

aten = torch.ops.aten


def structural_difference(structure: Structure, gone: np.ndarray, found: Sequence[Trace]) -> str:
    """The first place where re-traces depart from the predicted ops and shapes, or nothing."""
    causes = (_first_difference(structure, position, trace, gone) for position, trace in enumerate(found))
    return next((cause for cause in causes if cause), "")


def constant_difference(structure: Structure, found: Sequence[Trace], plan: Plan) -> str:
    """The first constant that re-traces do not share with the original and the plan does not make up for."""
    edits = rescaling(structure, found)
    if edits is not None and same_scalings(plan, edits):
        return ""
    for before, after in zip(structure.traces, found, strict=False):
        for difference in differing_constants(before, after):
            call = difference.before
            return (
                f"{call.module or 'the network'}: {call.op} uses constants {list(difference.theirs)}, the original "
                f"{list(difference.ours)}, and no weight of the plan makes up for it"
            )
    return "the plan scales weights although no constant of the code has changed"


def _first_difference(structure: Structure, position: int, found: Trace, gone: np.ndarray) -> str:
    old, new = structure.traces[position].graph, found.graph
    after_cut = functools.cache(structure.shapes_after(gone, position))
    if _step_by_step(old.calls, new, after_cut):
        return ""
    theirs_run = _steps(old.calls, after_cut)
    ours_run = _steps(new.calls, lambda value: new.values[value].shape)
    for before, after in zip(theirs_run, ours_run, strict=False):
        where = after.module or "the network"
        lays_out = before.op.overloadpacket in LAYOUTS and after.op.overloadpacket in LAYOUTS
        if before.op is not after.op and not lays_out:
            return f"{where}: runs {after.op} where the original runs {before.op}"
        for ours, theirs in zip(after.outputs, before.outputs, strict=True):
            shape, own = after_cut(theirs), new.values[ours].shape
            if own != shape and not (lays_out and _without_ones(own) == _without_ones(shape)):
                return f"{where}: {after.op} gives shape {own}, predicted was {shape}"
    if len(theirs_run) != len(ours_run):
        return f"it runs {len(ours_run)} operations, the original {len(theirs_run)}"
    return ""


def _step_by_step(calls: Sequence[OpCall], new: Graph, after_cut: Callable[[int], tuple[int, ...]]) -> bool:
    """Whether a graph runs exactly these calls, with the shapes predicted for what they give."""
    return len(calls) == len(new.calls) and all(
        before.op is after.op
        and [after_cut(v) for v in before.outputs] == [new.values[v].shape for v in after.outputs]
        for before, after in zip(calls, new.calls, strict=True)
    )


def _steps(calls: Sequence[OpCall], shape: Callable[[int], tuple[int, ...]]) -> list[OpCall]:
    """The calls without copies and without what only moves axes of size 1: whether code does either depends on a size
    being 1, not on the computation.
    """
    return [
        call
        for call in calls
        if call.op not in COPIES
        and not (call.op.overloadpacket in LAYOUTS and _keeps_order(call, shape(call.inputs[0]), shape))
    ]


def _keeps_order(call: OpCall, old: tuple[int, ...], shape: Callable[[int], tuple[int, ...]]) -> bool:
    packet, rank = call.op.overloadpacket, len(old)
    if packet in (aten.permute, aten.transpose, aten.t):
        order = list(range(rank))
        if packet is aten.permute:
            order = [d % rank for d in call.args[1]]
        elif rank > 1:
            a, b = (d % rank for d in (call.args[1:3] if packet is aten.transpose else (0, 1)))
            order[a], order[b] = b, a
        moved = [d for d in order if old[d] != 1]
        return moved == sorted(moved)
    return _without_ones(old) == _without_ones(shape(call.outputs[0]))


def _without_ones(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]
