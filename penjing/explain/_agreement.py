"""How far two attributions agree, example by example. Shapes: [n, positions]."""

import math

import torch
from torch import Tensor

from penjing.core import UsageError

TOP = 0.1  # share of the positions that counts as what a network looks at


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation over the positions of each example, float64 [n] in [-1, 1]; ties share their mean
    rank.

    NaN where one of them is constant. It weighs all positions alike, also those that neither network looks at.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[10.0, 30.0, 20.0]]))
    tensor([0.5000], dtype=torch.float64)
    """
    left, right = (_centred(_ranks(one)) for one in _both(a, b))
    norm = left.square().sum(1).sqrt() * right.square().sum(1).sqrt()
    return torch.where(norm > 0, (left * right).sum(1) / norm, math.nan)


def top_overlap(a: Tensor, b: Tensor, share: float = TOP) -> Tensor:
    """Intersection over union of the largest `share` of the positions of each, float64 [n] in [0, 1].

    Two attributions drawn at random overlap, too: by about share / (2 - share).

    >>> top_overlap(torch.tensor([[0.1, 0.9, 0.8, 0.0]]), torch.tensor([[0.0, 0.9, 0.1, 0.2]]), 0.5)
    tensor([0.3333], dtype=torch.float64)
    """
    left, right = _both(a, b)
    count = max(1, round(share * left.shape[1]))
    tops = [
        torch.zeros(one.shape, dtype=torch.bool).scatter(1, one.topk(count, 1).indices, True)
        for one in (left, right)
    ]
    shared = (tops[0] & tops[1]).sum(1).double()
    return shared / (2 * count - shared)


def _both(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.dim() != 2 or not a.numel():
        raise UsageError(
            f"attributions of shapes {tuple(a.shape)} and {tuple(b.shape)} do not compare: give [n, positions]"
        )
    return a.double(), b.double()


def _ranks(values: Tensor) -> Tensor:
    """Mean ranks along dim 1."""
    return torch.stack([_mean_ranks(row) for row in values])


def _mean_ranks(row: Tensor) -> Tensor:
    _, at, counts = torch.unique(row, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    return (ends - (counts.double() - 1) / 2)[at]


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(1, keepdim=True)
