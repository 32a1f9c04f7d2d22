"""Gradient criteria."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import UsageError
from penjing.core._groups import PruneGroup
from penjing.criteria._registry import Context, Score, criterion
from penjing.criteria._sums import Sums, spread

MAX_BATCHES = 50


@criterion("taylor", in_loss="additive")
def taylor(model: nn.Module, context: Context) -> Score:
    """First-order change of the loss: I_g = sum over w in g of |w dL/dw| (Molchanov et al., CVPR 2019, eq. 8, with
    absolute values instead of squares), averaged over at most 50 batches in eval mode.

    Needs `calibration` and `loss`; costs one forward and backward pass per batch. It is a linear guess about
    removing one unit alone, not the loss after removing many.
    """
    if context.calibration is None or context.loss is None:
        raise UsageError(
            "criterion 'taylor' needs calibration=batches and loss=callable(outputs, batch): "
            "pj.prune(..., criterion='taylor', calibration=loader, "
            "loss=lambda out, batch: F.cross_entropy(out, batch[1]))"
        )
    if not callable(context.loss) or not isinstance(context.calibration, Iterable) or _is_tensor(context):
        raise UsageError("calibration must be an iterable of batches and loss a callable(outputs, batch)")
    sums = Sums(_accumulate(model, context), 1)

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        return spread(group, sums)

    return score


def _is_tensor(context: Context) -> bool:
    return isinstance(context.calibration, torch.Tensor)


def _accumulate(model: nn.Module, context: Context) -> dict[str, torch.Tensor]:
    assert context.calibration is not None
    assert context.loss is not None
    parameters = dict(model.named_parameters(remove_duplicate=False))
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    batches = 0
    with _gradients(model):
        for batch in itertools.islice(context.calibration, MAX_BATCHES):
            loss = _checked(context.loss(run_batch(model, batch), batch), batches)
            model.zero_grad(set_to_none=True)
            loss.backward()
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    total[name].add_((parameter.detach() * parameter.grad).abs_())
            batches += 1
    if not batches:
        raise UsageError(
            "calibration gave no batch: pass a list or a loader, not a generator that was used up"
        )
    return total


def _checked(loss: Any, batch: int) -> torch.Tensor:
    if not isinstance(loss, torch.Tensor) or loss.dim() or not loss.requires_grad:
        raise UsageError(
            f"loss(outputs, batch) gave {type(loss).__name__} on calibration batch {batch}: it must give a scalar "
            "tensor that depends on the network's parameters, such as F.cross_entropy(outputs, batch[1])"
        )
    if not torch.isfinite(loss):
        raise UsageError(
            f"the loss is {loss.item()} on calibration batch {batch}: check the data and the loss"
        )
    return loss


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Eval mode with every parameter's gradient on; modes, flags and gradients are put back."""
    modes = [(m, m.training) for m in model.modules()]
    flags = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    model.eval()
    for parameter, _, _ in flags:
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        with torch.enable_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag, grad in flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad


def run_batch(model: nn.Module, batch: Any) -> Any:
    """The network's outputs for a batch: a tensor, (inputs, ...) with inputs first, or a dict of keyword arguments."""
    if isinstance(batch, Mapping):
        return model(**batch)
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
