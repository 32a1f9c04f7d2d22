"""Criteria that need no data: random, and the L1 and L2 norm of everything that goes with a unit."""

import zlib

import numpy as np
from torch import nn

from penjing.core import UsageError
from penjing.core._groups import PruneGroup
from penjing.criteria._registry import Context, Score, criterion
from penjing.criteria._sums import Sums, spread
from penjing.structure import every_path, named_parameters


def _norm(power: int, model: nn.Module) -> Score:
    parameters = dict(named_parameters(every_path(model)))
    if any(p.is_meta for p in parameters.values()):
        raise UsageError(
            "the network is on the meta device: it has no weights to rank; use criterion='random'"
        )
    sums = Sums(parameters, power)

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        return spread(group, sums) ** (1 / power)

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
