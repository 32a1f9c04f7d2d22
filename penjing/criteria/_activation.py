"""Criteria from what comes in: weights times the size, or the variation, of their input."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from penjing.core._groups import PruneGroup, Slot
from penjing.criteria._calibration import batches_of
from penjing.criteria._moments import Moments, input_moments
from penjing.criteria._registry import Context, Score, criterion
from penjing.criteria._sums import Sums, spread


@criterion("activation")
def activation(model: nn.Module, context: Context) -> Score:
    """Weights times input norm: sqrt(sum over the columns j that read a unit of E[x_j^2] sum_i W_ij^2), the Wanda score
    |W_ij| ||x_j|| (Sun et al., "A simple and effective pruning approach for large language models", ICLR 2024, eq. 1)
    over all weights that read the unit.

    Needs `calibration`, no loss; costs one forward pass per batch, at most 50. Padded positions do not count where the
    inputs hold a mask. Where no layer's weights read a unit it is the norm of its own weights. It is the error in the
    next layer's output as if its inputs were uncorrelated, not the loss.
    """
    return _read("activation", model, context, lambda moments: moments.mean_square)


@criterion("fluctuation")
def fluctuation(model: nn.Module, context: Context) -> Score:
    """As "activation", with the variance of the input instead of its mean square: what stays of a removal once the mean
    is made up for, by a bias or by batch norm (FLAP: An et al., "Fluctuation-based adaptive structured pruning for
    large language models", AAAI 2024, eq. 5). Costs the same.
    """
    return _read("fluctuation", model, context, lambda moments: moments.variance)


def _read(name: str, model: nn.Module, context: Context, size: Callable[[Moments], torch.Tensor]) -> Score:
    batches = batches_of(name, context, loss=False)
    sums = Sums(dict(model.named_parameters(remove_duplicate=False)), 2)
    moments = {key: size(m).cpu().numpy() for key, m in input_moments(model, batches).items()}

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        total, read = np.zeros(len(group)), False
        for slot in group.slots:
            inputs = moments.get((slot.name, slot.dim))
            if inputs is not None:
                squares = _squares(model, sums, slot, len(inputs))
                total, read = total + (squares * inputs).sum(0)[slot.index].sum(1), True
        return np.sqrt(total if read else spread(group, sums))

    return score


def _squares(model: nn.Module, sums: Sums, slot: Slot, groups: int) -> np.ndarray | None:
    """Per group of a convolution and index of the slot's dim the sum of its squared weights, [groups, indices]."""
    if groups == 1:
        return sums.along(slot.name, slot.dim)
    weight = model.get_parameter(slot.name).detach().double()
    parts = weight.reshape(groups, -1, weight.shape[slot.dim], weight[0, 0].numel())
    return parts.square().sum((1, 3)).cpu().numpy()
