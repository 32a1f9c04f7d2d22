"""Which channels of a teacher's streams a pruned student still has."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Plan
from penjing.recover._bn import batch_norms
from penjing.recover._layers import Layers, as_positions, streams
from penjing.recover._modules import call, kept_modes
from penjing.structure import fast_paths_off


@torch.no_grad()
def kept_channels(
    teacher: nn.Module, plan: Plan, inputs: Any, layers: Layers, widths: Mapping[int, int]
) -> dict[int, Tensor]:
    """Which channels of the teacher's streams the pruned student still has, by the number of the layer.

    A copy of the teacher with positive random weights runs with zeros in everything that the plan removes: a channel
    of a stream that went is then zero at every position, since all that writes to it went with it, and no other is,
    since nothing negative reaches an activation that would silence it. A layer whose remaining channels are not as
    many as the student's width (`widths`) is left out.
    """
    masked = _positive(copy.deepcopy(teacher))
    own = _tensors(masked)
    for name, dims in plan.removed.items():
        for dim, indices in dims.items() if name in own else ():
            if max(indices, default=0) < own[name].shape[dim]:
                own[name].index_fill_(dim, torch.tensor(indices, device=own[name].device), 0)
    with kept_modes(masked), fast_paths_off(), streams(masked, layers.outputs) as seen:
        masked.eval()
        call(masked, _positive_inputs(inputs))
    kept = {
        i: as_positions(seen[path], layers).flatten(0, -2).ne(0).any(0).nonzero()[:, 0]
        for i, path in enumerate(layers.outputs)
    }
    return {i: channels for i, channels in kept.items() if len(channels) == widths.get(i)}


def _positive(model: nn.Module) -> nn.Module:
    """`model` with weights in place that average over what they read, give or take a half; vectors lie around 1."""
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.is_floating_point():
            reads = weight[0].numel() if weight.ndim > 1 else 1
            drawn = torch.rand(weight.shape, generator=draw, dtype=torch.float64) + 0.5
            weight.copy_(drawn / reads)
    for norm in batch_norms(model):
        norm.reset_running_stats()
    return model


def _positive_inputs(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: _positive_inputs(part) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(_positive_inputs(part) for part in inputs)
    values = isinstance(inputs, Tensor) and inputs.is_floating_point() and inputs.ndim > 2
    return inputs.abs() + 0.5 if values else inputs


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers under all their names."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {name: t.detach() for name, t in (*parameters, *model.named_buffers(remove_duplicate=False))}
