"""First-order criteria."""

import numpy as np
import torch
from torch import nn

from penjing.core._groups import PruneGroup
from penjing.criteria._calibration import batches_of, gradients, loss_of
from penjing.criteria._registry import Context, Score, criterion
from penjing.criteria._sums import Sums, spread


@criterion("taylor", in_loss="additive")
def taylor(model: nn.Module, context: Context) -> Score:
    """First-order change of the loss: I_g = sum over w in g of |w dL/dw| (Molchanov et al., CVPR 2019, eq. 8, with
    absolute values instead of squares), averaged over at most 50 batches in eval mode.

    Needs `calibration` and `loss`; costs one forward and backward pass per batch. It is a linear guess about
    removing one unit alone, not the loss after removing many.
    """
    sums = Sums(_accumulate(model, context), 1)

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        return spread(group, sums)

    return score


def _accumulate(model: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    batches, count = batches_of("taylor", context), 0
    with gradients(model):
        total = {n: torch.zeros_like(p, dtype=_wide(p), requires_grad=False) for n, p in parameters.items()}
        for number, batch in enumerate(batches):
            loss = loss_of(model, context, batch, number)
            model.zero_grad(set_to_none=True)
            loss.backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    total[name].add_((parameter.detach().to(_wide(parameter)) * parameter.grad).abs_())
            count += 1
    return {name: summed.div_(count) for name, summed in total.items()}


def _wide(parameter: torch.Tensor) -> torch.dtype:
    """Products of half-precision numbers are smaller than those numbers reach, and sums of many stand still."""
    return torch.promote_types(parameter.dtype, torch.float32)
