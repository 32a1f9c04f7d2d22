"""Complex weights and outputs are pruned and proven in both parts."""

import torch
from torch import nn

import penjing as pj
from penjing.surgery._differences import largest_error
from penjing.surgery._precision import DOUBLE


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.turn = nn.Linear(4, 16), nn.Parameter(torch.randn(16, 12, dtype=torch.complex64))
        self.out = nn.Parameter(torch.randn(12, 3, dtype=torch.complex64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        return torch.complex(y, -y) @ self.turn @ self.out


def test_complex_weights_shrink():
    torch.manual_seed(0)
    model, example = Mixed(), torch.randn(3, 4)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.turn.shape == (8, 6)
    assert slim.turn.dtype is torch.complex64
    assert not plan.skipped
    assert pj.verify(model, slim, plan, example).passed


def test_an_imaginary_difference_counts():
    ours, theirs = torch.complex(torch.ones(3), torch.ones(3)), torch.complex(torch.ones(3), torch.zeros(3))
    assert largest_error([ours], [theirs], DOUBLE) == 1.0
