"""Run a traced graph on real tensors with removed indices masked: the reference a smaller network must equal.

Masks act where an index is summed over (zero before every contraction); where statistics span a removed dim,
they are taken over the kept indices by formulas written apart from the kernels under test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from penjing.core import InternalError
from penjing.core._graph import Graph, OpCall, Ref

aten = torch.ops.aten
DOUBLES = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64}
DOUBLES |= {torch.complex32: torch.complex128, torch.complex64: torch.complex128}


@dataclass(frozen=True, slots=True)
class Mask:
    """Removed indices of dim `dim` of tensor input `position` of a call."""

    position: int
    dim: int
    removed: torch.Tensor
    renormalized: bool


def replay(
    graph: Graph,
    tensors: Mapping[int, torch.Tensor],
    masks: Mapping[int, Sequence[Mask]],
    wanted: Sequence[int],
) -> list[torch.Tensor]:
    """The values `wanted` from `tensors` (inputs, states and constants by value id), all in float64.

    `masks` lists, per call index, what is masked there. Other values are freed after their last use.
    """
    held: dict[int, torch.Tensor] = dict(tensors)
    last_use = {value: position for position, call in enumerate(graph.calls) for value in call.inputs}
    keep = set(wanted)
    device = next((t.device for t in tensors.values() if t.is_floating_point()), torch.device("cpu"))
    for position, call in enumerate(graph.calls):
        result = _step(call, held, masks.get(position, ()), device)
        several = result if isinstance(result, (tuple, list)) else (result,)
        results = [r for r in several if isinstance(r, torch.Tensor)]
        held.update(zip(call.outputs, results, strict=False))
        for value in (*call.inputs, *call.outputs):
            if last_use.get(value, position) == position and value not in keep:
                held.pop(value, None)
    return [held[value] for value in wanted]


def _step(call: OpCall, held: dict[int, torch.Tensor], masks: Sequence[Mask], device: torch.device) -> Any:
    inputs = {value: held[value] for value in call.inputs}
    renormalized = [m for m in masks if m.renormalized]
    for mask in masks:
        if not mask.renormalized:
            value = call.inputs[mask.position]
            inputs[value] = inputs[value].index_fill(mask.dim, mask.removed, 0)
    args = [fill(a, inputs, device) for a in call.args]
    kwargs = {k: fill(v, inputs, device) for k, v in call.kwargs.items()}
    if renormalized:
        return _reference(call, args, kwargs, renormalized)
    if call.op.overloadpacket is aten.as_strided_ and tuple(args[0].shape) == tuple(args[1]):
        return args[0]
    if call.op is aten.view.default:
        return args[0].reshape(args[1])  # a reference formula may lay its result out in another way
    return call.op(*args, **kwargs)


def fill(item: Any, inputs: Mapping[int, torch.Tensor], device: torch.device) -> Any:
    if isinstance(item, Ref):
        return inputs[item.value]
    if isinstance(item, tuple):
        return [fill(i, inputs, device) for i in item]
    if isinstance(item, torch.dtype):
        return DOUBLES.get(item, item)
    if isinstance(item, torch.device):
        return device
    return item


def _reference(call: OpCall, args: list[Any], kwargs: dict[str, Any], masks: Sequence[Mask]) -> Any:
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


def _moments(x: torch.Tensor, dims: list[int], masks: Sequence[Mask]) -> tuple[torch.Tensor, torch.Tensor]:
    keep = _kept(x, masks).expand_as(x)
    count = keep.sum(dims, keepdim=True)
    mean = (x * keep).sum(dims, keepdim=True) / count
    variance = ((x - mean) ** 2 * keep).sum(dims, keepdim=True) / count
    return mean, variance


def _layer_norm(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x, shape, weight, bias, eps = args
    dims = list(range(x.dim() - len(shape), x.dim()))
    mean, variance = _moments(x, dims, masks)
    scale = (variance + eps).rsqrt()
    y = (x - mean) * scale
    y = y * weight if weight is not None else y
    return (y + bias if bias is not None else y), mean, scale


def _rms_norm(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    x, shape, weight, eps = args
    dims = list(range(x.dim() - len(shape), x.dim()))
    keep = _kept(x, masks).expand_as(x)
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    scale = ((x * x * keep).sum(dims, keepdim=True) / keep.sum(dims, keepdim=True) + eps).rsqrt()
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
    y = (x - mean) * (variance + eps).rsqrt()
    shape = [1, -1, *([1] * (x.dim() - 2))]
    y = y * weight.reshape(shape) if weight is not None else y
    y = y + bias.reshape(shape) if bias is not None else y
    return y, mean.flatten(), (variance + eps).rsqrt().flatten()


def _filled(fill: float) -> Callable[..., Any]:
    def formula(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
        x = args[0]
        for mask in masks:
            x = x.index_fill(mask.dim, mask.removed, fill)
        return call.op(x, *args[1:], **kwargs)

    return formula


def _of_the_kept(call: OpCall, args: list[Any], kwargs: Any, masks: Sequence[Mask]) -> Any:
    """The statistic over the kept indices alone."""
    x = args[0]
    for mask in masks:
        lost = torch.zeros(x.shape[mask.dim], dtype=torch.bool, device=x.device).index_fill(
            0, mask.removed, True
        )
        x = x.index_select(mask.dim, (~lost).nonzero().flatten())
    return call.op(x, *args[1:], **kwargs)


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
    aten.amin: _filled(float("inf")),
    **dict.fromkeys((aten.var, aten.std, aten.var_mean, aten.std_mean), _of_the_kept),
}
