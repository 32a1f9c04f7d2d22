"""Contractions of the masked reference, over kept indices alone.

Fresh memory costs more than arithmetic here: large weights are cut and cast a block at a time. Depthwise convolutions
have no kernel of their own in float64 and are summed tap by tap.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from penjing.core._graph import OpCall
from penjing.surgery._precision import Precision, in_double

aten = torch.ops.aten
BLOCK = 1 << 19  # elements of a weight that are cut and cast at once
LARGE = 1 << 23  # elements of a weight that is never cast whole: so much memory is new at every use


@dataclass(frozen=True, slots=True)
class Selection:
    """A contraction over kept indices alone: (argument, axis, kept) in, (axis, kept, full size) out.

    `addend` is the rank of the result where argument 0 is added to it, broadcast; 0 where it is not. `groups` are those
    of a depthwise convolution.
    """

    inputs: tuple[tuple[int, int, torch.Tensor], ...]
    outputs: tuple[tuple[int, torch.Tensor, int], ...]
    addend: int
    groups: int = 0


def contracted(
    call: OpCall, args: list[Any], kwargs: Mapping[str, Any], selection: Selection, precision: Precision
) -> torch.Tensor:
    """The call's result at kept indices, arbitrary numbers at the others."""
    places: dict[int, list[tuple[int, torch.Tensor]]] = {}
    for argument, axis, kept in selection.inputs:
        places.setdefault(argument, []).append((axis, kept))
    if selection.addend:
        args[0] = _narrowed(args[0], selection)
    if selection.groups:
        args[8] = selection.groups
    if _is_large_product(call, args, kwargs):
        *before, weight = args
        cut = [_picked(a, places.get(i, ()), precision) for i, a in enumerate(before)]
        result = _in_blocks(call, cut, weight, dict(places.get(len(before), ())), precision)
    else:
        cut = [_picked(a, places.get(i, ()), precision) for i, a in enumerate(args)]
        result = by_definition(call.op, cut, kwargs)
    for axis, kept, size in selection.outputs:
        full = _arbitrary(result, axis, size)
        result = full.index_copy_(axis, kept, result)
    return result


def _narrowed(addend: torch.Tensor, selection: Selection) -> torch.Tensor:
    """The kept part of what is added to a contraction, where it is not broadcast."""
    for axis, kept, size in selection.outputs:
        own = axis - selection.addend + addend.dim()
        if own >= 0 and addend.shape[own] == size:
            addend = addend.index_select(own, kept)
    return addend


def _arbitrary(like: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """A tensor of `size` along `axis` with one number in (0, 1) per index: what nobody may read."""
    shape = [size if d == axis else n for d, n in enumerate(like.shape)]
    numbers = _numbers(size).reshape([-1 if d == axis else 1 for d in range(like.dim())])
    return like.new_empty(shape).copy_(numbers)


@functools.lru_cache(maxsize=256)
def _numbers(size: int) -> torch.Tensor:
    return 0.5 + 0.4 * torch.arange(size, dtype=torch.float64).mul(1.7).sin()


def _picked(item: Any, places: Sequence[tuple[int, torch.Tensor]], precision: Precision) -> Any:
    """The kept indices of some axes in the proof's precision; large tensors a block at a time, in memory's order."""
    if not isinstance(item, torch.Tensor):
        return item
    if item.dim() == 2 and item.stride(0) < item.stride(1):
        return _picked(item.t(), [(1 - axis, kept) for axis, kept in places], precision).t()
    ordered = sorted(places, key=lambda place: -item.stride(place[0]))
    dtype = precision.dtypes.get(item.dtype, item.dtype)
    if item.numel() <= BLOCK or not ordered:
        return _taken(item, ordered).to(dtype)
    kept = dict(ordered)
    outer = kept.pop(0, None)
    shape = [len(kept[d]) if d in kept else n for d, n in enumerate(item.shape)]
    shape[0] = item.shape[0] if outer is None else len(outer)
    found = item.new_empty(shape, dtype=dtype)
    step = max(1, BLOCK * item.shape[0] // item.numel())
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        rows = item[start:stop] if outer is None else item.index_select(0, outer[start:stop])
        found[start:stop] = _taken(rows, [place for place in ordered if place[0] != 0])
    return found


def _taken(tensor: torch.Tensor, places: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
    for axis, kept in places:
        tensor = tensor.index_select(axis, kept)
    return tensor


def _is_large_product(call: OpCall, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return call.op in (aten.mm.default, aten.addmm.default) and not kwargs and args[-1].numel() > LARGE


def _in_blocks(
    call: OpCall,
    before: Sequence[Any],
    weight: torch.Tensor,
    places: Mapping[int, torch.Tensor],
    precision: Precision,
) -> torch.Tensor:
    """A product with a large matrix, by columns where those lie together in memory and by summed rows elsewhere."""
    *addend, left = before
    rows, columns = (places.get(d, torch.arange(n, device=weight.device)) for d, n in enumerate(weight.shape))
    out = left.new_zeros(left.shape[0], len(columns))
    if weight.stride(0) < weight.stride(1):
        step = max(1, BLOCK // weight.shape[0])
        for start in range(0, len(columns), step):
            part = weight.t().index_select(0, columns[start : start + step])
            part = precision.cast(part.index_select(1, rows) if 0 in places else part)
            out[:, start : start + step] = left @ part.t()
    else:
        step = max(1, BLOCK // weight.shape[1])
        for start in range(0, len(rows), step):
            part = weight.index_select(0, rows[start : start + step])
            part = precision.cast(part.index_select(1, columns) if 1 in places else part)
            out.addmm_(left[:, start : start + step], part)
    return out.add_(addend[0]) if addend else out


def by_definition(op: Any, args: list[Any], kwargs: Mapping[str, Any]) -> Any:
    """The op; depthwise convolutions tap by tap, and no convolution in the way of the network under test."""
    if op is aten.convolution.default:
        return _depthwise(*args[:6]) if _is_depthwise(*args) else op(*args, **kwargs)
    return in_double(op, args, kwargs)


def _is_depthwise(
    x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> bool:  # fmt: skip
    one_each = weight.shape[1] == 1 and weight.shape[0] == groups == x.shape[1]
    return one_each and not transposed and weight[0].numel() <= groups and x.dtype == torch.float64


def _depthwise(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> torch.Tensor:
    """The sum over the kernel's taps of the shifted input times the tap."""
    rank = weight.dim() - 2
    by_channel = (1, -1, *([1] * rank))
    x = F.pad(x, [n for amount in reversed(padding) for n in (amount, amount)])
    kernel = weight.shape[2:]
    extent = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    ]
    out = x.new_zeros(x.shape[0], x.shape[1], *extent)
    for tap in itertools.product(*map(range, kernel)):
        window = [
            slice(i * d, i * d + s * (n - 1) + 1, s)
            for i, n, s, d in zip(tap, extent, stride, dilation, strict=True)
        ]
        out.addcmul_(x[:, :, *window], weight[(slice(None), 0, *tap)].view(by_channel))
    return out if bias is None else out.add_(bias.view(by_channel))
