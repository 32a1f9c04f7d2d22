"""Hidden states of a student drawn to a teacher's."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Plan
from penjing.recover._layers import Layers, streams
from penjing.recover._modules import call, kept_modes
from penjing.structure import fast_paths_off

TINY = 1e-12


def hidden_distance(student: Tensor, teacher: Tensor, keep: Tensor) -> Tensor:
    """Sum of (s - t)^2 over sum of t^2, over the positions [batch, positions] to keep: 0 is equal, 1 as far as zeros.

    Both are [batch, positions, width]. The mean squared error that TinyBERT (Jiao et al., Findings of EMNLP 2020,
    eq. 8) and DPHuBERT (Peng et al., Interspeech 2023, eq. 3) draw layers together with, relative to the teacher's
    size, so that no layer outweighs another. It says nothing of how the answers differ. No positions give 0.
    """
    own, other = student[keep].float(), teacher[keep].float()
    return (own - other).square().sum() / other.square().sum().clamp_min(TINY)


@torch.no_grad()
def kept_channels(
    teacher: nn.Module, plan: Plan, inputs: Any, layers: Layers, widths: Mapping[int, int]
) -> dict[int, Tensor]:
    """Which channels of the teacher's streams the pruned student still has, by the number of the layer.

    A copy of the teacher runs with zeros in everything that the plan removes: a channel of a stream that went is
    then zero at every position, since all that writes to it went with it. A layer whose remaining channels are
    not as many as the student's width (`widths`) is left out.
    """
    masked = copy.deepcopy(teacher)
    own = _tensors(masked)
    for name, dims in plan.removed.items():
        for dim, indices in dims.items() if name in own else ():
            if max(indices, default=0) < own[name].shape[dim]:
                own[name].index_fill_(dim, torch.tensor(indices, device=own[name].device), 0)
    with kept_modes(masked), fast_paths_off(), streams(masked, layers.outputs) as seen:
        masked.eval()
        call(masked, inputs)
    kept = {
        i: seen[path].flatten(0, -2).ne(0).any(0).nonzero()[:, 0] for i, path in enumerate(layers.outputs)
    }
    return {i: channels for i, channels in kept.items() if len(channels) == widths.get(i)}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {name: t.detach() for name, t in (*parameters, *model.named_buffers(remove_duplicate=False))}
