"""Batch norms folded into the layers before them, wherever that is possible: the network as it is deployed."""

from dataclasses import dataclass

from torch import nn

from penjing.core import PlanError, VerificationError
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
from penjing.surgery._adjustments._folds import folds
from penjing.surgery._adjustments._propose import Site
from penjing.surgery._apply import apply
from penjing.surgery._verify import verify


def fold_norms(
    model: nn.Module, example_inputs: ExampleInputs | list[ExampleInputs], *, proven: bool = True
) -> tuple[nn.Module, Plan]:
    """The network in eval mode with every batch norm that can be folded into the convolution or fully connected layer
    before it, and the plan; `model` is left untouched. Where none can be, a copy and a plan without edits.

    W' = W g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + h. The function is the same; its training is not, so
    fold last. Runtimes that compile (ONNX Runtime, OpenVINO) do this themselves, eager PyTorch does not. What cannot
    be folded has its reason in `pj.adjustments`; a norm whose fold cannot be proven stays as it is. Not `proven`
    leaves out the proof (in float64, to 1e-9), for networks that are only timed: none is folded where one cannot be.

    Raises `UsageError` and `TraceError` as `trace` does, and `VerificationError` where folds that are proven alone are
    not together.
    """
    refuse_unsupported(model)
    with alone():
        merged, merging = merge_weights(model)
        structure = trace_merged(merged, example_inputs)
        site = Site(structure=structure, parts=parts_of(structure))
        edits = tuple(one for one in folds(site) if isinstance(one, AdjustComponent))
        about = Folding(model, merged, merging, example_inputs)
        if not proven:
            return _without_proof(about, edits)
        found = about.proven(edits)
        if isinstance(found, str):
            edits = tuple(one for one in edits if not isinstance(about.proven((one,)), str))
            found = about.proven(edits)
    if isinstance(found, str):
        raise VerificationError(f"the network with its batch norms folded is not proven: {found}")
    return found


@dataclass(frozen=True, slots=True)
class Folding:
    """A network, the same with its weights merged, and what that took."""

    model: nn.Module
    merged: nn.Module
    merging: Plan | None
    example_inputs: ExampleInputs | list[ExampleInputs]

    def with_folds(self, edits: tuple[AdjustComponent, ...]) -> tuple[nn.Module, Plan]:
        plan = Plan(edits=edits, fingerprint=fingerprint(self.merged))
        plan = plan if self.merging is None else self.merging.then(plan)
        return apply(self.model, plan), plan

    def proven(self, edits: tuple[AdjustComponent, ...]) -> tuple[nn.Module, Plan] | str:
        """The network with these folds, or why it is not proven."""
        try:
            slim, plan = self.with_folds(edits)
            proof = verify(self.model, slim, plan, self.example_inputs) if edits else None
        except (PlanError, VerificationError) as error:
            return str(error)
        return (slim, plan) if proof is None or proof.passed else str(proof.cause)


def _without_proof(about: Folding, edits: tuple[AdjustComponent, ...]) -> tuple[nn.Module, Plan]:
    try:
        return about.with_folds(edits)
    except PlanError:
        return about.with_folds(())
