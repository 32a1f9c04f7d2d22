"""From a plan of removals to a smaller network with the original's constants, and its re-traces."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from penjing.core._edits import ScaleTensor
from penjing.core._plan import Plan
from penjing.structure import Structure, Trace, keep_freed, trace_forward
from penjing.surgery._apply import carry_out
from penjing.surgery._rescale import rescaling


@dataclass(frozen=True, slots=True)
class Cut:
    """A smaller network, the plan that makes it from the original, and one re-trace per example input."""

    slim: nn.Module
    plan: Plan
    traces: tuple[Trace, ...]


def cut(model: nn.Module, structure: Structure, plan: Plan, example_inputs: Any) -> Cut:
    """Carry out a plan; where code computes a constant from a size that shrank, extend it by the factors on weights
    that keep the original's function. Where no weight can carry the factor the constant differs, and `check` says so.
    """
    keep_freed()
    slim = carry_out(model, plan)
    traces = retrace(slim, example_inputs)
    edits = rescaling(structure, traces)
    if not edits:
        return Cut(slim, plan, traces)
    plan = replace(plan, edits=(*plan.edits, *edits), policies=(*plan.policies, _policy(edits)))
    return Cut(carry_out(model, plan), plan, traces)


def retrace(slim: nn.Module, example_inputs: Any) -> tuple[Trace, ...]:
    """One forward trace per example input."""
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    return tuple(trace_forward(slim, example, provenance=False) for example in examples)


def _policy(edits: Sequence[ScaleTensor]) -> str:
    names = list(dict.fromkeys(edit.name for edit in edits))
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return f"rescaled: {len(names)} tensors ({shown}) carry factors that keep constants computed from sizes"
