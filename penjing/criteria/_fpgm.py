"""Redundancy: how far a unit's weights are from those of its neighbours."""

import numpy as np
import torch
from torch import nn

from penjing.core import UsageError
from penjing.core._groups import PruneGroup
from penjing.criteria._consumers import reading_dims
from penjing.criteria._registry import Context, Score, criterion

ROWS = 512  # of the distances, held at once


@criterion("fpgm")
def fpgm(model: nn.Module, context: Context) -> Score:
    """Sum of the Euclidean distances of a unit's weights to those of all other units of its group: those nearest the
    geometric median go, as others can stand in for them (He et al., "Filter pruning via geometric median", CVPR 2019,
    eq. 6 and 8).

    A unit's weights are the rows that make it, from all layers that do, one after another. Costs units^2 x weights per
    group, and no data. It sees neither what the unit's input is nor what is made of its output.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if any(p.is_meta for p in parameters.values()):
        raise UsageError(
            "the network is on the meta device: it has no weights to rank; use criterion='random'"
        )
    reading = reading_dims(context.structure) if context.structure is not None else frozenset()

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        able = [s for s in group.slots if s.name in parameters and parameters[s.name].dim() > 1]
        made = [s for s in able if (s.name, s.dim) not in reading] or able
        rows = [_rows(parameters[s.name], s.dim, s.index) for s in made]
        if not rows:
            return np.ones(len(group))
        return _distances(torch.cat(rows, 1))

    return score


def _rows(weight: torch.Tensor, dim: int, index: np.ndarray) -> torch.Tensor:
    """The weights of each unit in one tensor, float64 [units, weights]."""
    places = torch.from_numpy(index).to(weight.device)
    found = weight.detach().movedim(dim, 0)[places.flatten()].reshape(len(index), -1)
    return (torch.view_as_real(found).flatten(1) if found.is_complex() else found).double()


def _distances(rows: torch.Tensor) -> np.ndarray:
    """Per row the sum of its distances to all rows."""
    parts = [torch.cdist(rows[i : i + ROWS], rows).sum(1) for i in range(0, len(rows), ROWS)]
    return torch.cat(parts).cpu().numpy()
