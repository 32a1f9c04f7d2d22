"""Meta kernels run once per signature: deep networks repeat the same shapes, and many meta kernels are slow Python."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

_SELF = "self"
_Spec = tuple[torch.Size, tuple[int, ...], torch.dtype]


class MetaMemo:
    """Runs ops on meta tensors; the result of a signature seen before is made anew from its shapes alone.

    Only ops that return new tensors, or that write into their first argument without changing its shape, are kept;
    views always run.
    """

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def __call__(
        self, func: Any, tensors: Sequence[torch.Tensor], args: Any, kwargs: Mapping[str, Any]
    ) -> Any:
        if not tensors or not _repeatable(func):
            return func(*args, **kwargs)
        key = (func, _signature(args), _signature(tuple(kwargs.items())))
        try:
            known = self._known.get(key)
        except TypeError:  # an argument that cannot be hashed
            return func(*args, **kwargs)
        if known is None and func in _QUICK:
            known = self._known[key] = _QUICK[func](args)
        if known is _SELF:
            return args[0]
        if known is not None:
            made = [torch.empty_strided(s, d, dtype=t, device="meta") for s, d, t in known[1]]
            return made[0] if known[0] is None else known[0](made)
        before = _spec(tensors[0])
        result = func(*args, **kwargs)
        found = _remembered(func, result, tensors, before)
        if found is not None:
            self._known[key] = found
        return result


def _remembered(func: Any, result: Any, tensors: Sequence[torch.Tensor], before: _Spec) -> Any:
    if func._schema.is_mutable:
        return _SELF if result is tensors[0] and _spec(result) == before else None
    made = [result] if isinstance(result, torch.Tensor) else result
    if not isinstance(made, (list, tuple)) or not all(type(t) is torch.Tensor and t.is_meta for t in made):
        return None
    given = {t.untyped_storage()._cdata for t in tensors}
    if any(t.untyped_storage()._cdata in given for t in made):
        return None
    kind = None if isinstance(result, torch.Tensor) else list if isinstance(result, list) else tuple
    return kind, tuple(map(_spec, made))


def _spec(tensor: torch.Tensor) -> _Spec:
    return tensor.shape, tensor.stride(), tensor.dtype


def _signature(items: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        (i.shape, i.stride(), i.dtype)
        if isinstance(i, torch.Tensor)
        else _signature(i)
        if isinstance(i, (list, tuple))
        else (type(i), i)
        for i in items
    )


def _evaluating_batch_norm(args: Sequence[Any]) -> Any:
    """The slowest meta kernel of convolutional networks, when it does not train; None to let the kernel answer."""
    x, weight, bias, mean, variance, training = args[:6]
    channels = tuple(x.shape[1:2])
    if training or any(t is not None and t.shape != channels for t in (weight, bias, mean, variance)):
        return None
    own = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    statistics = (torch.Size(channels), (1,), own)
    return tuple, (_spec(torch.empty_like(x)), statistics, statistics)


def _unary(args: Sequence[Any]) -> Any:
    """An elementwise function of one float tensor: dims, strides and dtype are its own."""
    x = args[0]
    alone = x.is_floating_point() and not any(isinstance(a, torch.Tensor) for a in args[1:])
    return (None, (_spec(torch.empty_like(x)),)) if alone else None


def _unary_in_place(args: Sequence[Any]) -> Any:
    alone = args[0].is_floating_point() and not any(isinstance(a, torch.Tensor) for a in args[1:])
    return _SELF if alone else None


def _layer_norm(args: Sequence[Any]) -> Any:
    """A layer norm over the last dims of a contiguous tensor; None to let the kernel answer."""
    x, shape, weight, bias = args[:4]
    sizes = tuple(shape)
    plain = (
        x.is_contiguous()
        and x.dtype in (torch.float32, torch.float64)
        and tuple(x.shape[-len(sizes) :]) == sizes
    )
    if not plain or any(
        t is not None and (tuple(t.shape) != sizes or t.dtype != x.dtype) for t in (weight, bias)
    ):
        return None
    rest = torch.empty((*x.shape[: -len(sizes)], *([1] * len(sizes))), dtype=x.dtype, device="meta")
    return tuple, (_spec(x), _spec(rest), _spec(rest))


def _product(args: Sequence[Any]) -> Any:
    """Matrix products of contiguous results in one dtype; None (the kernel answers) where anything is unusual."""
    *added, a, b = args[:3] if isinstance(args[-1], torch.Tensor) and len(args) == 3 else args
    if a.dtype != b.dtype or not a.is_floating_point() or a.dim() not in (2, 3) or b.dim() != a.dim():
        return None
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        return None
    shape = (*a.shape[:-1], b.shape[-1])
    if any(t.dtype != a.dtype or t.shape not in (shape[-1:], shape) for t in added):
        return None
    return None, (_spec(torch.empty(shape, dtype=a.dtype, device="meta")),)


_aten = torch.ops.aten
_UNARY = (
    "relu", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "elu", "leaky_relu", "mish",
    "softplus", "exp", "log", "sqrt", "rsqrt", "neg", "sin", "cos", "erf",
)  # fmt: skip
_QUICK: dict[Any, Any] = {
    _aten.native_batch_norm.default: _evaluating_batch_norm,
    _aten.native_layer_norm.default: _layer_norm,
    **dict.fromkeys((_aten.mm.default, _aten.bmm.default, _aten.addmm.default), _product),
    **{getattr(_aten, name).default: _unary for name in _UNARY},
    **{getattr(_aten, f"{name}_").default: _unary_in_place for name in _UNARY if hasattr(_aten, f"{name}_")},
}


@functools.cache
def _repeatable(func: Any) -> bool:
    """Whether the op returns new tensors only, or just its first argument, written to."""
    aliases = [r.alias_info for r in func._schema.returns]
    written = [a for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not written:
        return bool(aliases) and all(a is None for a in aliases)
    return len(written) == len(aliases) == 1 and written[0].name == func._schema.arguments[0].name
