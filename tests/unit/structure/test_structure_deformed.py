"""Deformable convolutions: channels as in plain ones."""

import pytest
import torch
from torch import nn

import penjing as pj

ops = pytest.importorskip("torchvision.ops")


class Deformed(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.offset, self.mask = (
            nn.Conv2d(3, 16, 1),
            nn.Conv2d(16, 18, 3, 1, 1),
            nn.Conv2d(16, 9, 1),
        )
        self.deformed, self.out = ops.DeformConv2d(16, 24, 3, 1, 1), nn.Conv2d(24, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.into(x)
        return self.out(self.deformed(x, self.offset(x), self.mask(x).sigmoid()))


def test_channels_go_through_a_deformable_convolution():
    torch.manual_seed(0)
    model, example = Deformed(), torch.randn(2, 3, 6, 6)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.deformed.weight.shape[:2] == (12, 8)
    assert slim.offset.out_channels == 18
    assert pj.verify(model, slim, plan, example).passed
