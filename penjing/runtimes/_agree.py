"""Whether another runtime gives the answers that PyTorch gives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from penjing.runtimes._inputs import ExampleInputs, as_call, tensors_of
from penjing.runtimes._place import untouched
from penjing.runtimes._require import HALF

APART = 1e-3  # of the largest value: other kernels in float32 stay far below, another function does not
APART_HALF = 5e-2
SMALL = (
    1e-2  # below this size of answers rounding inside the network shows, and they may be apart by 1e-3 of it
)
SMALLER = 1e-6  # below this nothing else shows
WRONG = 0.1  # of the largest value: rounding is never taken for this


class Disagreement(RuntimeError):
    """Two runtimes give different answers for the same inputs."""


def answers(model: nn.Module, inputs: ExampleInputs) -> tuple[Tensor, ...]:
    """Every tensor of PyTorch's own answer in eval mode, in order."""
    args, kwargs = as_call(inputs)
    with untouched(model), torch.inference_mode():
        return tuple(tensor.cpu() for tensor in tensors_of(model(*args, **kwargs)))


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """max |found - expected| / max |expected| over all values that are finite in `expected`.

    Where max |expected| is below 0.01 it counts as 0.01, unless a tenth of it is apart. Infinite where number or shapes
    of the tensors differ, or where a value is finite on one side only.
    """
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
        return float("inf")
    return max((_apart(*pair) for pair in zip(found, expected, strict=True)), default=0.0)


def _apart(found: Tensor, expected: Tensor) -> float:
    one, other = found.double().flatten(), expected.double().flatten()
    finite = other.isfinite()
    if not torch.equal(finite, one.isfinite()):
        return float("inf")
    if not finite.any():
        return 0.0
    one, other = one[finite], other[finite]
    gap, size = float((one - other).abs().max()), float(other.abs().max())
    return gap / size if size > SMALLER and gap > WRONG * size else gap / max(size, SMALL)


def agree(found: Sequence[Tensor], expected: Sequence[Tensor], where: str = "") -> float:
    """The `difference`; raises Disagreement where it is more than other kernels can be blamed for."""
    if any(map(Tensor.numel, expected)) and not any(tensor.isfinite().any() for tensor in expected):
        raise Disagreement(f"none of PyTorch's answers is finite, so that nothing can be compared{where}")
    error = difference(found, expected)
    half = any(tensor.dtype in HALF for tensor in expected)
    most = APART_HALF if half else APART
    if not error <= most:
        raise Disagreement(f"its answers differ from PyTorch's by {error:.3g} of their size{where}")
    return error
