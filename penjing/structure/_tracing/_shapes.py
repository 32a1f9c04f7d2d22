"""What frequent ops give, told from shapes alone: their meta kernels are slow Python.

Each function returns None, for the kernel to answer, wherever layouts, dtypes or arguments are anything but plain.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

Spec = tuple[Sequence[int], Sequence[int], torch.dtype]
Found = tuple[Any, tuple[Spec, ...]]  # the kind of container (None for one tensor), and what it holds
SELF = "self"
_aten = torch.ops.aten


def spec(tensor: torch.Tensor) -> Spec:
    return tensor.shape, tensor.stride(), tensor.dtype


@functools.lru_cache(4096)
def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a contiguous tensor as its kernels write them."""
    strides, step = [1] * len(shape), 1
    for axis in range(len(shape) - 1, -1, -1):
        strides[axis] = step
        step *= max(1, shape[axis])
    return tuple(strides)


def _one(shape: Sequence[int], dtype: torch.dtype) -> Found:
    sizes = tuple(shape)
    return None, ((sizes, row_major(sizes), dtype),)


def _like(x: torch.Tensor) -> Spec:
    if _is_plain(x):
        return spec(x)
    with torch._C._DisableTorchDispatch():
        return spec(torch.empty_like(x))


def _is_plain(*tensors: torch.Tensor) -> bool:
    """Whether all hold one kind of floats, laid out in row-major order, and none is empty."""
    dtype = tensors[0].dtype
    return dtype.is_floating_point and all(
        t.dtype == dtype and t.stride() == row_major(t.shape) and 0 not in t.shape for t in tensors
    )


def _batch_norm(args: Sequence[Any]) -> Found | None:
    """The slowest meta kernel of convolutional networks."""
    x, channels = args[0], tuple(args[0].shape[1:2])
    if any(t is not None and t.shape != channels for t in args[1:5]):
        return None
    own = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    statistics = (channels, (1,), own)
    return tuple, (_like(x), statistics, statistics)


def _unary(args: Sequence[Any]) -> Found | None:
    """An elementwise function of one float tensor: dims, strides and dtype are its own."""
    return (None, (_like(args[0]),)) if _is_alone(args) else None


def _unary_in_place(args: Sequence[Any]) -> Any:
    return SELF if _is_alone(args) else None


def _is_alone(args: Sequence[Any]) -> bool:
    return args[0].is_floating_point() and not any(isinstance(a, (torch.Tensor, complex)) for a in args[1:])


def _binary(args: Sequence[Any]) -> Found | None:
    """An elementwise function of two tensors that broadcast, or of one and a number."""
    x, y = args[:2]
    if not isinstance(y, torch.Tensor):
        return _unary(args)
    return _broadcast((x, y), x.dtype) if _is_plain(x, y) else None


def _binary_in_place(args: Sequence[Any]) -> Any:
    found = _binary(args) if args[0].is_floating_point() else None
    return SELF if found is not None and found[1][0][0] == tuple(args[0].shape) else None


def _broadcast(tensors: Sequence[torch.Tensor], dtype: torch.dtype) -> Found | None:
    """Tensors without empty dims, aligned at their last."""
    rank = max(t.dim() for t in tensors)
    sizes = [(1,) * (rank - t.dim()) + tuple(t.shape) for t in tensors]
    shape = [max(several) for several in zip(*sizes, strict=True)]
    fits = all(n in (1, whole) for several in sizes for n, whole in zip(several, shape, strict=True))
    return _one(shape, dtype) if fits else None


def _where(args: Sequence[Any]) -> Found | None:
    chosen, x, y = args
    return _broadcast((chosen, x, y), x.dtype) if _is_mask(chosen) and _is_plain(x, y) else None


def _masked_fill(args: Sequence[Any]) -> Found | None:
    x, mask, value = args
    plain = _is_plain(x) and _is_mask(mask) and not isinstance(value, (complex, torch.Tensor))
    return _broadcast((x, mask), x.dtype) if plain else None


def _is_mask(tensor: torch.Tensor) -> bool:
    rows = tensor.stride() == row_major(tensor.shape)
    return tensor.dtype == torch.bool and rows and 0 not in tensor.shape


def _softmax(args: Sequence[Any]) -> Found | None:
    x, dim = args[:2]
    other = args[2] if len(args) > 2 else None
    if other or not _is_plain(x) or not isinstance(dim, int) or not -x.dim() <= dim < x.dim():
        return None
    return None, (spec(x),)


def _layer_norm(args: Sequence[Any]) -> Found | None:
    """A layer norm over the last dims."""
    x, shape, weight, bias = args[:4]
    sizes = tuple(shape)
    if x.dtype not in (torch.float32, torch.float64) or tuple(x.shape[-len(sizes) :]) != sizes:
        return None
    if any(t is not None and (tuple(t.shape) != sizes or t.dtype != x.dtype) for t in (weight, bias)):
        return None
    rest = (*x.shape[: -len(sizes)], *([1] * len(sizes)))
    statistics = (rest, row_major(rest), x.dtype)
    strides = x.stride() if x.is_contiguous() else row_major(x.shape)
    return tuple, ((x.shape, strides, x.dtype), statistics, statistics)


def _product(args: Sequence[Any]) -> Found | None:
    """Matrix products in one dtype."""
    *added, a, b = args[:3] if isinstance(args[-1], torch.Tensor) and len(args) == 3 else args
    if a.dtype != b.dtype or not a.is_floating_point() or a.dim() not in (2, 3) or b.dim() != a.dim():
        return None
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return None
    shape = (*a.shape[:-1], b.shape[-1])
    if any(t.dtype != a.dtype or t.shape not in (shape[-1:], shape) for t in added):
        return None
    return _one(shape, a.dtype)


def _convolution(args: Sequence[Any]) -> Found | None:
    """A batched convolution, transposed or not."""
    x, weight, bias, stride, padding, dilation, transposed, extra, groups = args
    rank = x.dim() - 2
    numbers = (stride, padding, dilation, extra)
    if (
        not _is_plain(x, weight)
        or rank < 1
        or weight.dim() != x.dim()
        or any(len(n) != rank for n in numbers)
    ):
        return None
    given, taken = weight.shape[:2] if not transposed else (weight.shape[1] * groups, x.shape[1] // groups)
    fits = x.shape[1] == (weight.shape[0] if transposed else taken * groups) and given % groups == 0
    if not fits or (bias is not None and (bias.shape != (given,) or bias.dtype != x.dtype)):
        return None
    places = [
        (n - 1) * s - 2 * p + d * (k - 1) + more + 1 if transposed else (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d, more in zip(x.shape[2:], weight.shape[2:], *numbers, strict=True)
    ]
    return _one((x.shape[0], given, *places), x.dtype) if min(places) > 0 else None


def _mean(args: Sequence[Any]) -> Found | None:
    x, dims = args[:2]
    keep = len(args) > 2 and args[2]
    if not _is_plain(x) or not dims or not all(-x.dim() <= d < x.dim() for d in dims):
        return None
    gone = {d % x.dim() for d in dims}
    if len(gone) < len(dims):
        return None
    shape = [1 if d in gone else n for d, n in enumerate(x.shape) if keep or d not in gone]
    return _one(shape, x.dtype)


def _cat(args: Sequence[Any]) -> Found | None:
    tensors, dim = args[0], args[1] if len(args) > 1 else 0
    first = tensors[0]
    if not _is_plain(*tensors) or not -first.dim() <= dim < first.dim():
        return None
    axis, shape = dim % first.dim(), list(first.shape)
    for tensor in tensors[1:]:
        if tensor.dim() != first.dim():
            return None
        shape[axis] += tensor.shape[axis]
    rest = (*first.shape[:axis], *first.shape[axis + 1 :])
    alike = all((*t.shape[:axis], *t.shape[axis + 1 :]) == rest for t in tensors)
    return _one(shape, first.dtype) if alike else None


def _unsafe_view(args: Sequence[Any]) -> Found | None:
    x, shape = args[:2]
    whole = _is_plain(x) and all(n > 0 for n in shape) and math.prod(shape) == x.numel()
    return _one(shape, x.dtype) if whole else None


def _embedding(args: Sequence[Any]) -> Found | None:
    table, places = args[:2]
    plain = table.dim() == 2 and _is_plain(table) and places.dtype in (torch.int64, torch.int32)
    return _one((*places.shape, table.shape[1]), table.dtype) if plain else None


UNARY = (
    "relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "elu", "leaky_relu", "mish",
    "softplus", "exp", "log", "sqrt", "rsqrt", "neg", "sin", "cos", "erf",
)  # fmt: skip
QUICK: dict[Any, Callable[[Sequence[Any]], Any]] = {
    _aten.native_batch_norm.default: _batch_norm,
    _aten.native_layer_norm.default: _layer_norm,
    _aten.convolution.default: _convolution,
    _aten.mean.dim: _mean,
    _aten.cat.default: _cat,
    _aten.where.self: _where,
    _aten.masked_fill.Scalar: _masked_fill,
    _aten._unsafe_view.default: _unsafe_view,
    _aten.embedding.default: _embedding,
    _aten._softmax.default: _softmax,
    _aten._safe_softmax.default: _softmax,
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default, _aten.addmm.default), _product),
    **dict.fromkeys((_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor), _binary),
    **dict.fromkeys((_aten.add_.Tensor, _aten.mul_.Tensor), _binary_in_place),
    **dict.fromkeys((_aten.mul.Scalar, _aten.add.Scalar, _aten.pow.Tensor_Scalar), _unary),
    **{getattr(_aten, name).default: _unary for name in UNARY},
    **{getattr(_aten, f"{name}_").default: _unary_in_place for name in UNARY if hasattr(_aten, f"{name}_")},
}
