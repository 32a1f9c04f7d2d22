"""What a layer multiplies with its weight, position by position."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


def columns(layer: Any, x: Tensor) -> Tensor:
    """[positions, inputs] of a fully connected layer, or of a convolution in one or two dims (its kernel's places)."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, x.shape[-1])
    sizes = [layer.kernel_size, layer.dilation, layer.padding, layer.stride]
    if isinstance(layer, nn.Conv1d):
        x, sizes = x.unsqueeze(2), [(1, *sizes[0]), (1, *sizes[1]), (0, *sizes[2]), (1, *sizes[3])]
    found = F.unfold(x, sizes[0], dilation=sizes[1], padding=sizes[2], stride=sizes[3])
    return found.transpose(1, 2).reshape(-1, found.shape[1])
