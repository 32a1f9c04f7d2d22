"""Criteria that need no data: random, and the L1 and L2 norm of everything that goes with a unit."""

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from penjing.core import UsageError
from penjing.core._groups import PruneGroup
from penjing.criteria._registry import Context, Score, criterion

_BLOCK = 1 << 18


def spread(group: PruneGroup, per_element: Mapping[str, torch.Tensor], power: int = 1) -> torch.Tensor:
    """Sum elementwise scores (by tensor name, to a power) over each unit's slices; float64 of shape (units,)."""
    total = torch.zeros(len(group), dtype=torch.float64)
    for slot in group.slots:
        values = per_element.get(slot.name)
        if values is not None:
            total += _along(values, slot.dim, power)[torch.from_numpy(slot.index)].sum(1)
    return total


def _along(values: torch.Tensor, dim: int, power: int) -> torch.Tensor:
    """Sums over every other dim in float64, a block at a time: no tensor is ever doubled whole."""
    if not values.numel():
        return torch.zeros(values.shape[dim], dtype=torch.float64)
    total = torch.zeros(values.shape[dim], dtype=torch.float64)
    others = [d for d in range(values.dim()) if d != dim]
    size = max(1, _BLOCK * len(values) // values.numel())
    for start in range(0, len(values), size):
        block = values[start : start + size].double() ** power
        along = (block.sum(others) if others else block).cpu()
        if dim == 0:
            total[start : start + size] = along
        else:
            total += along
    return total


def _norm(power: int, model: nn.Module) -> Score:
    parameters = {n: p.detach() for n, p in model.named_parameters(remove_duplicate=False)}
    if any(p.is_meta for p in parameters.values()):
        raise UsageError(
            "the network is on the meta device: it has no weights to rank; use criterion='random'"
        )

    def score(group: PruneGroup, model: nn.Module) -> torch.Tensor:
        held = {slot.name: parameters[slot.name] for slot in group.slots if slot.name in parameters}
        magnitudes = {name: p.abs() if power % 2 else p for name, p in held.items()}
        return spread(group, magnitudes, power) ** (1 / power)

    return score


@criterion("l1")
def l1(model: nn.Module, context: Context) -> Score:
    """Sum of |w| over all parameter slices of a unit (Li et al., ICLR 2017). Costs one pass over the weights.

    It says nothing about how much the unit's input varies or whether later layers use it.
    """
    return _norm(1, model)


@criterion("l2")
def l2(model: nn.Module, context: Context) -> Score:
    """Euclidean norm over all parameter slices of a unit (group norm, Fang et al., DepGraph, CVPR 2023, eq. 4 without
    the per-slice weights). Costs one pass over the weights. It is no measure of the loss a removal causes.
    """
    return _norm(2, model)


@criterion("random")
def random(model: nn.Module, context: Context) -> Score:
    """Uniform scores, a pure function of (seed, group name): the control every criterion has to beat."""

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        return np.random.default_rng([context.seed, zlib.crc32(group.name.encode())]).random(len(group))

    return score
