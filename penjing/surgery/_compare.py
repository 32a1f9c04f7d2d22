"""The strict re-trace: the same ops, every predicted shape, the original's constants."""

from collections.abc import Sequence

import numpy as np
import torch

from penjing.core._plan import Plan
from penjing.structure import Structure, Trace
from penjing.surgery._constants import computations, differing_constants
from penjing.surgery._rescale import rescaling, same_scalings


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
                f"{call.module}: {call.op} uses constants {list(difference.theirs)}, the original "
                f"{list(difference.ours)}, and no weight of the plan makes up for it"
            )
    return "the plan scales weights although no constant of the code has changed"


def _first_difference(structure: Structure, position: int, found: Trace, gone: np.ndarray) -> str:
    new = found.graph
    ours_run = computations(new.calls)
    theirs_run = computations(structure.traces[position].graph.calls)
    for (_, before), (_, after) in zip(theirs_run, ours_run, strict=False):
        if before.op is not after.op and not {before.op, after.op} <= _VIEWS:
            return f"{after.module}: runs {after.op} where the original runs {before.op}"
        for ours, theirs in zip(after.outputs, before.outputs, strict=True):
            shape = structure.shape_after(theirs, gone, position)
            if new.values[ours].shape != shape:
                return (
                    f"{after.module}: {after.op} gives shape {new.values[ours].shape}, predicted was {shape}"
                )
    if len(theirs_run) != len(ours_run):
        return f"it runs {len(ours_run)} operations, the original {len(theirs_run)}"
    return ""


_VIEWS = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default}
