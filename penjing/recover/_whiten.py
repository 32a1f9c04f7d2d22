"""Low-rank factors that miss least of what a layer gives on the data, not of its weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import AdjustComponent
from penjing.recover._columns import columns
from penjing.recover._modules import call, kept_modes

WIDEST = 2048  # inputs: a matrix as wide and as high is factorised
RIDGES = (
    1e-4,
    1e-3,
    1e-2,
    1e-1,
)  # of the mean square of the inputs; sums in float32 may need more than the first


def whiten(model: nn.Module, slim: nn.Module, edit: AdjustComponent, batches: Sequence[Any]) -> None:
    """Rewrites, in place, the factors of a layer that `edit` factorised in `slim`; all other edits are left alone.

    With the inputs' second moments C = L L^T and the whole weight W of `model`: U S V^T = SVD(W L), truncated to the
    rank, W ~ (U S^1/2) (S^1/2 V^T L^-1) (Wang et al., "SVD-LLM", ICLR 2025). Layers of more than 2,048 inputs keep the
    factors of the weight itself.
    """
    if edit.kind != "low_rank":
        return
    pair: Any = slim.get_submodule(edit.modules[0])
    old = model.get_submodule(edit.modules[0])
    whole = old._parameters.get(str(dict(edit.options)["weight"]))
    if whole is None or whole[0].numel() > WIDEST or not hasattr(pair, "reduce"):
        return
    rank, moments = len(pair.reduce.weight), _moments(slim, pair.reduce, batches)
    if moments is None:
        return
    left, right = whitened(whole.detach().flatten(1).double().to(moments.device), moments, rank)
    with torch.no_grad():
        pair.reduce.weight.copy_(right.reshape(pair.reduce.weight.shape))
        pair.expand.weight.copy_(left.reshape(pair.expand.weight.shape))


def whitened(weight: Tensor, moments: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors [out, rank] and [rank, in] of `weight` [out, in] that miss least for inputs of these second moments
    [in, in].
    """
    lower = _root(moments)
    left, values, right = torch.linalg.svd(weight @ lower, full_matrices=False)
    root = values[:rank].sqrt()
    unwhitened = torch.linalg.solve_triangular(lower, root[:, None] * right[:rank], upper=False, left=False)
    return left[:, :rank] * root, unwhitened


def _root(moments: Tensor) -> Tensor:
    """The lower triangular L of L L^T = moments plus the least ridge that makes them positive definite."""
    scale = moments.diagonal().mean().clamp_min(1e-30) * torch.eye(len(moments)).to(moments)
    for ridge in RIDGES:
        lower, info = torch.linalg.cholesky_ex(moments + ridge * scale)
        if not info:
            return lower
    return scale.sqrt()


def _moments(slim: nn.Module, layer: Any, batches: Sequence[Any]) -> Tensor | None:
    """Second moments of what the layer multiplies, [in, in], float64; None where it is never called."""
    found: list[Tensor] = []

    def hear(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        flat = columns(layer, given[0].detach()).float()
        add = (flat.mT @ flat).double()
        found[:] = [found[0] + add] if found else [add]

    handle = layer.register_forward_pre_hook(hear)
    try:
        with kept_modes(slim), torch.no_grad():
            slim.eval()
            for batch in batches:
                call(slim, batch)
    finally:
        handle.remove()
    return found[0] if found and bool(torch.isfinite(found[0]).all()) else None
