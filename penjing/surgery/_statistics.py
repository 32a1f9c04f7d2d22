"""Normalisations over the kept indices alone, by formulas written apart from the kernels under test."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from penjing.core import InternalError
from penjing.core._graph import OpCall

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Mask:
    """Removed indices of dim `dim` of tensor input `position` of a call."""

    position: int
    dim: int
    removed: torch.Tensor
    renormalized: bool


def kept_statistics(call: OpCall, args: list[Any], kwargs: dict[str, Any], masks: Sequence[Mask]) -> Any:
    formula = _FORMULAS.get(call.op.overloadpacket)
    if formula is None:
        raise InternalError(f"{call.op} renormalises a removed dim, and there is no reference for it")
    return formula(call, args, kwargs, masks)


def has_reference(packet: Any) -> bool:
    return packet in _FORMULAS


def _kept(x: torch.Tensor, masks: Sequence[Mask]) -> torch.Tensor:
    """1 where an index stays, 0 where it goes; broadcastable to `x`."""
    keep = torch.ones([1] * x.dim(), dtype=x.dtype, device=x.device)
    for mask in masks:
        one = torch.ones(x.shape[mask.dim], dtype=x.dtype, device=x.device)
        one[mask.removed] = 0
        keep = keep * one.reshape([-1 if d == mask.dim else 1 for d in range(x.dim())])
    return keep


def _of_the_kept_in(x: torch.Tensor, masks: Sequence[Mask]) -> torch.Tensor:
    """The kept indices alone."""
    kept: dict[int, torch.Tensor] = {}
    for mask in masks:
        if mask.dim not in kept:
            kept[mask.dim] = torch.ones(x.shape[mask.dim], dtype=torch.bool, device=x.device)
        kept[mask.dim].index_fill_(0, mask.removed, False)
    for dim, mark in kept.items():
        x = x.index_select(dim, mark.nonzero().flatten())
    return x


def _moments(x: torch.Tensor, dims: list[int], masks: Sequence[Mask]) -> tuple[torch.Tensor, torch.Tensor]:
    kept = _of_the_kept_in(x, [m for m in masks if m.dim in dims])
    count = math.prod(kept.shape[d] for d in dims)
    mean = kept.sum(dims, keepdim=True) / count
    return mean, (kept - mean).square_().sum(dims, keepdim=True) / count


def _normalised(
    x: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor, weight: Any, bias: Any
) -> torch.Tensor:
    y = (x - mean).mul_(scale)
    y = y.mul_(weight) if weight is not None else y
    return y.add_(bias) if bias is not None else y


def _layer_norm(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x, shape, weight, bias, eps = args
    mean, variance = _moments(x, list(range(x.dim() - len(shape), x.dim())), masks)
    scale = (variance + eps).rsqrt()
    return _normalised(x, mean, scale, weight, bias), mean, scale


def _rms_norm(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x, shape, weight, eps = args
    dims = list(range(x.dim() - len(shape), x.dim()))
    kept = _of_the_kept_in(x, [m for m in masks if m.dim in dims])
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    count = math.prod(kept.shape[d] for d in dims)
    scale = ((kept * kept).sum(dims, keepdim=True) / count + eps).rsqrt()
    return (x * scale * weight if weight is not None else x * scale), scale


def _group_norm(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x, weight, bias, batch, channels, _, groups, eps = args
    keep = _kept(x, masks).expand_as(x).reshape(batch, groups, -1)
    grouped = x.reshape(batch, groups, -1)
    count = keep.sum(-1, keepdim=True).clamp(min=1)
    mean = (grouped * keep).sum(-1, keepdim=True) / count
    variance = ((grouped - mean) ** 2 * keep).sum(-1, keepdim=True) / count
    scale = (variance + eps).rsqrt()
    y = ((grouped - mean) * scale).reshape(x.shape)
    shape = [1, channels, *([1] * (x.dim() - 2))]
    y = y * weight.reshape(shape) if weight is not None else y
    y = y + bias.reshape(shape) if bias is not None else y
    return y, mean.reshape(batch, groups), scale.reshape(batch, groups)


def _mean(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x = args[0]
    dims = list(args[1]) if len(args) > 1 and args[1] else list(range(x.dim()))
    keep_dims = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
    keep = _kept(x, masks).expand_as(x)
    return (x * keep).sum(dims, keepdim=keep_dims) / keep.sum(dims, keepdim=keep_dims)


def _batch_norm(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x, weight, bias, _, _, _, _, eps = args
    mean, variance = _moments(x, [d for d in range(x.dim()) if d != 1], masks)
    scale = (variance + eps).rsqrt()
    weight, bias = (t if t is None else t.reshape(1, -1, *([1] * (x.dim() - 2))) for t in (weight, bias))
    return _normalised(x, mean, scale, weight, bias), mean.flatten(), scale.flatten()


def _filled(fill: float) -> Callable[..., Any]:
    def formula(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
        x = args[0]
        for mask in masks:
            x = x.index_fill(mask.dim, mask.removed, fill)
        return call.op(x, *args[1:], **kwargs)

    return formula


def _of_the_kept(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    """The statistic over the kept indices alone."""
    return call.op(_of_the_kept_in(args[0], masks), *args[1:], **kwargs)


def _distance(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    """A loss over the kept indices of both sides."""
    pair = [_of_the_kept_in(x, [m for m in masks if m.position == i]) for i, x in enumerate(args[:2])]
    return call.op(*pair, *args[2:], **kwargs)


_FORMULAS: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm: _layer_norm,
    aten._fused_rms_norm: _rms_norm,
    aten.native_group_norm: _group_norm,
    aten.native_batch_norm: _batch_norm,
    aten._native_batch_norm_legit: _batch_norm,
    aten.mean: _mean,
    aten._softmax: _filled(float("-inf")),
    aten._safe_softmax: _filled(float("-inf")),
    aten._log_softmax: _filled(float("-inf")),
    aten.logsumexp: _filled(float("-inf")),
    aten.amax: _filled(float("-inf")),
    aten.max: _filled(float("-inf")),
    aten.min: _filled(float("inf")),
    aten.amin: _filled(float("inf")),
    aten.topk: _filled(float("-inf")),
    **dict.fromkeys((aten.mse_loss, aten.smooth_l1_loss, aten.huber_loss), _distance),
    aten.logcumsumexp: _filled(float("-inf")),
    aten.cumprod: _filled(1.0),
    aten.cummax: _filled(float("-inf")),
    aten.cummin: _filled(float("inf")),
    **dict.fromkeys((aten.var, aten.std, aten.var_mean, aten.std_mean), _of_the_kept),
    **dict.fromkeys((aten.any, aten.all, aten.prod, aten.aminmax, aten.median, aten.nanmedian), _of_the_kept),
}
