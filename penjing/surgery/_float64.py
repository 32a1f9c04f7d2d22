"""Run a network's own code in float64, whatever float type it asks for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

DOUBLES = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64}
DOUBLES |= {torch.complex32: torch.complex128, torch.complex64: torch.complex128}


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """A float or complex tensor in double precision; the tensor itself where it is neither or is so already."""
    return tensor.to(DOUBLES.get(tensor.dtype, tensor.dtype))


class PromotedCasts(TorchDispatchMode):
    """Casts to a reduced float type inside the network, and its literals, are promoted to float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: _doubled(v) for k, v in (kwargs or {}).items()}
        if func is torch.ops.aten.lift_fresh.default:  # a number written in the code, perhaps as float32
            return doubled(args[0])
        return in_double(func, [_doubled(a) for a in args], kwargs)


def in_double(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The op, by its definition where its kernel takes no float64."""
    if func is torch.ops.aten._grouped_mm.default and args[0].dtype is torch.float64:
        return _grouped(*args, **kwargs)
    return func(*args, **kwargs)


def _grouped(
    x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor, bias: Any = None, out_dtype: Any = None
) -> torch.Tensor:
    """Each run of rows by its group's matrix."""
    out, start = x.new_zeros(x.shape[0], weight.shape[2]), 0
    for group, end in enumerate(ends.tolist()):
        out[start:end] = x[start:end] @ weight[group]
        start = end
    return out


def _doubled(item: Any) -> Any:
    return DOUBLES.get(item, item) if isinstance(item, torch.dtype) else item


@contextmanager
def float64() -> Iterator[None]:
    """Everything inside computes in float64, without gradients and without drawing from the caller's random numbers."""
    before = torch.get_default_dtype()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_default_dtype(before)
        torch.backends.mha.set_fastpath_enabled(fast)
