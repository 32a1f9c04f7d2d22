"""Layers in two factors of lower rank: by SVD, along rows and columns, or depthwise and pointwise."""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from penjing.core._edits import AdjustComponent
from penjing.structure import CONVOLUTION, LINEAR
from penjing.surgery._adjustments._propose import Misfit, Site, convolution_options, layer_options, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, number
from penjing.surgery._adjustments._tensors import convolution, learnt, linear, perhaps, settings, tensor

LOW_RANK, SPATIAL, SEPARABLE = "low_rank", "spatial", "separable"
SHARES = (0.25, 0.5)  # of the rank at which two factors cost as much as one layer


def _full(options: Options) -> bool:
    return bool(options.get("full"))


@adjustment(LOW_RANK, exact=_full, tell=lambda o: f"factorised to rank {o['rank']}")
def low_rank(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """W ~ (U_r S_r^1/2)(S_r^1/2 V_r^T) by SVD of W [out, in k^2]: the kernel first, then 1x1 (Zhang et al.,
    "Accelerating very deep convolutional networks", TPAMI 2016).
    """
    (layer,) = modules
    weight, bias = tensor(layer, options["weight"]), perhaps(layer, options.get("bias"))
    like, rank = learnt(layer, options["weight"]), _rank(options, *weight.flatten(1).shape)
    left, right = _factors(weight.flatten(1), rank)
    if "stride" not in options:
        return (_pair(linear(right, None, like), linear(left, bias, like)),)
    reduce = convolution(right.view(rank, *weight.shape[1:]), None, like, **settings(options))
    ones = [1] * (weight.dim() - 2)
    point = left.reshape(*left.shape, *ones)
    expand = convolution(point, bias, like, stride=ones, padding=[0] * len(ones), dilation=ones)
    return (_pair(reduce, expand),)


@adjustment(SPATIAL, exact=_full, tell=lambda o: f"split into columns and rows of rank {o['rank']}")
def spatial(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """A kernel of k rows and l columns as k x 1, then 1 x l, by SVD of W [in k, out l] (Jaderberg, BMVC 2014)."""
    (layer,) = modules
    weight, bias = tensor(layer, options["weight"]), perhaps(layer, options.get("bias"))
    out, inner, rows, columns = weight.shape
    like, rank = learnt(layer, options["weight"]), _rank(options, inner * rows, out * columns)
    left, right = _factors(weight.permute(1, 2, 0, 3).reshape(inner * rows, out * columns), rank)
    (s, t), (p, q), (d, e) = (settings(options)[name] for name in ("stride", "padding", "dilation"))
    upright = left.T.reshape(rank, inner, rows, 1)
    flat = right.view(rank, out, 1, columns).transpose(0, 1)
    return (
        _pair(
            convolution(upright, None, like, stride=(s, 1), padding=(p, 0), dilation=(d, 1)),
            convolution(flat, bias, like, stride=(1, t), padding=(0, q), dilation=(1, e)),
        ),
    )


@adjustment(
    SEPARABLE, exact=_full, tell=lambda o: f"made depthwise separable, {o['rank']} kernels per channel"
)
def separable(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """`rank` kernels per input channel, then 1x1: for each channel the SVD of W [out, k^2] (Guo et al., "Network
    decoupling", BMVC 2018).
    """
    (layer,) = modules
    weight, bias = tensor(layer, options["weight"]), perhaps(layer, options.get("bias"))
    out, inner, *kernel = weight.shape
    like, rank = learnt(layer, options["weight"]), _rank(options, out, weight[0, 0].numel())
    left, right = _factors(weight.flatten(2).transpose(0, 1), rank)  # [in, out, rank], [in, rank, k^2]
    own = settings(options)
    ones = [1] * len(kernel)
    depthwise = convolution(right.reshape(inner * rank, 1, *kernel), None, like, **{**own, "groups": inner})
    point = left.transpose(0, 1).reshape(out, inner * rank, *ones)
    expand = convolution(point, bias, like, stride=ones, padding=[0] * len(ones), dilation=ones)
    return (_pair(depthwise, expand),)


def _factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The two halves of the best approximation of this rank, of one matrix or of a batch."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[..., :rank].sqrt()
    return left[..., :rank] * root.unsqueeze(-2), root.unsqueeze(-1) * right[..., :rank, :]


def _rank(options: Options, *sizes: int) -> int:
    rank = number(options, "rank")
    if not 1 <= rank <= min(sizes):
        raise ValueError(f"rank={rank} is not between 1 and {min(sizes)}")
    return rank


def _pair(first: nn.Module, second: nn.Module) -> nn.Module:
    return nn.Sequential(OrderedDict(reduce=first, expand=second))


@proposer
def _low_ranks(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for part in (*site.parts.of(LINEAR), *site.parts.of(CONVOLUTION)):
        if part.kind == CONVOLUTION and part.op.args[8] != 1:
            yield Misfit(kind=LOW_RANK, module=part.path, why="it is a convolution in groups")
            continue
        out, *rest = site.weight_shape(part)
        inner = math.prod(rest)
        even = out * inner / (out + inner)
        ranks = dict.fromkeys(int(even * share) // 8 * 8 for share in SHARES)
        found = [rank for rank in ranks if rank]
        if not found:
            yield Misfit(
                kind=LOW_RANK, module=part.path, why=f"[{out}, {inner}] is too small to gain by two factors"
            )
        for rank in found:
            yield site.edit(LOW_RANK, part, rank=rank, **layer_options(part))


@proposer
def _splits(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for part in site.parts.of(CONVOLUTION):
        out, inner, *kernel = site.weight_shape(part)
        for kind in (SPATIAL, SEPARABLE):
            if part.op.args[8] != 1:
                yield Misfit(kind=kind, module=part.path, why="it is a convolution in groups")
            elif max(kernel) == 1:
                yield Misfit(kind=kind, module=part.path, why="its kernel is 1x1")
            elif kind == SPATIAL and (len(kernel) != 2 or min(kernel) == 1):
                yield Misfit(kind=kind, module=part.path, why="its kernel has no rows and columns")
            elif kind == SEPARABLE:
                yield site.edit(kind, part, rank=1, **convolution_options(part))
            else:
                even = out * inner * kernel[0] * kernel[1] / (inner * kernel[0] + out * kernel[1])
                rank = int(even / 2) // 8 * 8
                if rank:
                    yield site.edit(kind, part, rank=rank, **convolution_options(part))
