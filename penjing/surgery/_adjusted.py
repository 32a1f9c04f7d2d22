"""What is proven of adjustments: exact ones keep the function in float64, and all give outputs of the same shapes."""

import copy
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core._edits import AdjustComponent
from penjing.structure import (
    call_with,
    every_path,
    is_additive_mask,
    map_tensors,
    named_buffers,
    named_parameters,
    output_tensors,
    trace_forward,
)
from penjing.surgery._adjustments import change, keeps_function
from penjing.surgery._precision import DOUBLE, SINGLE, Precision


def misshapen(before: nn.Module, after: nn.Module, example_inputs: Any) -> str:
    """What is wrong with the outputs of the adjusted network; nothing where they have the shapes they had."""
    had, have = output_shapes(before, example_inputs), output_shapes(after, example_inputs)
    if had != have:
        return f"its outputs have shapes {have}, and had {had}"
    return does_not_run(after, example_inputs)


@torch.no_grad()
def does_not_run(model: nn.Module, example_inputs: Any) -> str:
    """What a forward by itself fails with, kernels for whole layers and all; a trace leaves those out."""
    now = copy.deepcopy(model).eval()
    try:
        for example in _alternatives(example_inputs):
            call_with(now, example)
    except (RuntimeError, AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
        return f"it does not run: {type(error).__name__}: {error}"
    return ""


def output_shapes(model: nn.Module, example_inputs: Any) -> list[list[tuple[int, ...]]]:
    """Those of each alternative."""
    graphs = [
        trace_forward(model, example, provenance=False).graph for example in _alternatives(example_inputs)
    ]
    return [[graph.values[value].shape for value in graph.outputs] for graph in graphs]


def function_kept(
    model: nn.Module, edits: Sequence[AdjustComponent], example_inputs: Any
) -> tuple[float, Precision]:
    """The largest error of the edits that claim to keep the function, those in a row together, on random inputs, and in
    which precision.

    Error is max|difference| / max(1, max|reference|) over all outputs. Constant tensors are drawn at random first:
    untrained norms would prove nothing.
    """
    if not any(map(keeps_function, edits)):
        return 0.0, DOUBLE
    try:
        return _largest(model, edits, example_inputs, DOUBLE), DOUBLE
    except (RuntimeError, TypeError) as error:
        if not any(word in str(error).lower() for word in ("double", "float64", "dtype")):
            raise
    return _largest(model, edits, example_inputs, SINGLE), SINGLE


def _largest(
    model: nn.Module, edits: Sequence[AdjustComponent], example_inputs: Any, precision: Precision
) -> float:
    generator = torch.Generator().manual_seed(0)
    now = copy.deepcopy(model).eval()
    now = now.to(precision.dtype) if precision is DOUBLE else now
    _drawn(now, generator)
    examples = [
        map_tensors(lambda t: _random(t, precision, generator), e) for e in _alternatives(example_inputs)
    ]
    error = 0.0
    with precision.run():
        for exact, run in groupby(edits, key=keeps_function):
            before = [output_tensors(call_with(now, e)) for e in examples] if exact else []
            for edit in run:
                change(now, edit)
            now.eval()
            for example, reference in zip(examples, before, strict=False):
                error = max(error, _apart(output_tensors(call_with(now, example)), reference))
    return error


def _apart(found: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    error = 0.0
    for ours, theirs in zip(found, reference, strict=True):
        if ours.shape != theirs.shape:
            return float("inf")
        if theirs.is_floating_point() and theirs.numel():
            error = max(error, float((ours - theirs).abs().max() / max(1.0, float(theirs.abs().max()))))
            error = error if torch.isfinite(ours).all() else float("inf")
    return error


def _drawn(model: nn.Module, generator: torch.Generator) -> None:
    named = every_path(model)
    with torch.no_grad():
        for name, tensor in (*named_parameters(named), *named_buffers(named)):
            if tensor.is_floating_point() and tensor.numel() > 1 and tensor.min() == tensor.max():
                spread = 0.2 * torch.randn(tensor.shape, generator=generator).clamp(-2, 2).to(tensor)
                tensor.copy_(1 + spread if name.endswith(("weight", "var", "gamma")) else spread)


def _random(tensor: Tensor, precision: Precision, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if is_additive_mask(tensor):
        return precision.cast(tensor)
    return torch.randn(tensor.shape, generator=generator).to(device=tensor.device, dtype=precision.dtype)


def _alternatives(example_inputs: Any) -> list[Any]:
    return example_inputs if isinstance(example_inputs, list) else [example_inputs]
