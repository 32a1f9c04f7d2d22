"""Batch norms folded into the layers before them, wherever that is possible: the network as it is deployed."""

from torch import nn

from penjing.core import VerificationError
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

    W' = W g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + h. The function is the same; its training is not, so fold
    last. Runtimes that compile (ONNX Runtime, OpenVINO) do this themselves, eager PyTorch does not. What cannot be
    folded has its reason in `pj.adjustments`. Not `proven` leaves out the proof (in float64, to 1e-9).

    Raises `UsageError` and `TraceError` as `trace` does, and `VerificationError` where the proof fails.
    """
    refuse_unsupported(model)
    with alone():
        merged, merging = merge_weights(model)
        structure = trace_merged(merged, example_inputs)
        site = Site(structure=structure, parts=parts_of(structure))
        edits = tuple(one for one in folds(site) if isinstance(one, AdjustComponent))
        plan = Plan(edits=edits, fingerprint=fingerprint(merged))
        plan = plan if merging is None else merging.then(plan)
        slim = apply(model, plan)
    if proven and edits:
        proof = verify(model, slim, plan, example_inputs)
        if not proof.passed:
            raise VerificationError(f"the network with its batch norms folded is not proven: {proof.cause}")
    return slim, plan
