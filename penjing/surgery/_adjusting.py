"""Adjust a network: what can be, and the network with some of it done."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from penjing.core import PenjingError, UsageError, VerificationError, cut
from penjing.core._edits import AdjustComponent
from penjing.core._plan import Plan
from penjing.structure import (
    ExampleInputs,
    alone,
    fingerprint,
    merge_weights,
    parts_of,
    refuse_unsupported,
    trace_merged,
)
from penjing.surgery._adjusted import does_not_run, output_shapes
from penjing.surgery._adjustments import keeps_function, told
from penjing.surgery._adjustments._propose import Misfit, Site, proposals
from penjing.surgery._apply import apply
from penjing.surgery._verify import verify

CAUSE = 120  # characters of what a network fails with


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustable:
    """One thing that could be done to a network: the edit, in words, and whether it keeps what the network computes;
    where it cannot be done `edit` is None and `why` says why.
    """

    kind: str
    module: str
    edit: AdjustComponent | None = None
    says: str = ""
    exact: bool = False
    why: str = ""


def adjustments(
    model: nn.Module, example_inputs: ExampleInputs | list[ExampleInputs]
) -> tuple[Adjustable, ...]:
    """What can be adjusted, found on the traced graph; what cannot be has its reason. `model` is left untouched.

    Every edit was tried: the network runs with it, and its outputs have the shapes they had. Says nothing of accuracy
    or speed. Raises `UsageError` and `TraceError` as `trace` does.
    """
    refuse_unsupported(model)
    with alone():
        merged, _ = merge_weights(model)
        structure = trace_merged(merged, example_inputs)
        site = Site(structure=structure, parts=parts_of(structure))
        return tuple(_tried(merged, site, example_inputs))


def _tried(
    model: nn.Module, site: Site, example_inputs: ExampleInputs | list[ExampleInputs]
) -> Iterator[Adjustable]:
    shapes = output_shapes(model, example_inputs)
    blank = copy.deepcopy(model).to("meta")
    own, known = fingerprint(blank), dict[Any, str]()
    for one in proposals(site):
        if isinstance(one, Misfit):
            yield Adjustable(kind=one.kind, module=one.module, why=one.why)
            continue
        try:
            plan, place = Plan(edits=(one,), fingerprint=own), _place(model, one)
            found = output_shapes(apply(blank, plan), example_inputs)
            why = "" if found == shapes else f"its outputs have shapes {found}, and had {shapes}"
            if not why and place not in known:
                known[place] = does_not_run(apply(model, plan), example_inputs)
            why = why or known[place]
        except PenjingError as error:
            where, _, cause = str(error).partition(" while tracing: ")
            cause = cause.partition(". Check that ")[0]
            why = ": ".join(cut(text.partition("\n")[0], CAUSE) for text in (where, cause) if text)
        if why:
            yield Adjustable(
                kind=one.kind, module=one.modules[0], why=f"the network would not run with it: {why}"
            )
        else:
            yield Adjustable(
                kind=one.kind, module=one.modules[0], edit=one, says=told(one), exact=keeps_function(one)
            )


def _place(model: nn.Module, edit: AdjustComponent) -> Any:
    """What kind of module holds the modules under which names: its code asks alike of all that stand there."""
    parts = (path.rpartition(".") for path in edit.modules)
    return (
        edit.kind,
        dict(edit.options).get("to"),
        tuple((type(model.get_submodule(parent)), name) for parent, _, name in parts),
    )


def adjust(
    model: nn.Module, example_inputs: ExampleInputs | list[ExampleInputs], edits: Sequence[AdjustComponent]
) -> tuple[nn.Module, Plan]:
    """The network with these edits, one after the other, and the plan; `model` is left untouched.

    Each edit speaks of the network that the edits before it leave. New weights are computed from the old ones alone:
    fit them to data with `penjing.recover`. Raises `UsageError` for what is no edit, `PlanError` for an edit that does
    not fit, and `VerificationError` where an exact one does not keep the function or the network does not run.
    """
    for number, edit in enumerate(edits):
        if not isinstance(edit, AdjustComponent):
            raise UsageError(
                f"edits[{number}] is a {type(edit).__name__}: give `edit` of what pj.adjustments found, if it has one"
            )
    refuse_unsupported(model)
    merged, merging = merge_weights(model)
    plan = Plan(edits=tuple(edits), fingerprint=fingerprint(merged))
    plan = plan if merging is None else merging.then(plan)
    slim = apply(model, plan)
    plan = replace(plan, policies=(*plan.policies, *map(told, edits)))
    proof = verify(model, slim, plan, example_inputs)
    if not proof.passed:
        raise VerificationError(f"the adjusted network is not proven: {proof.cause}")
    return slim, plan
