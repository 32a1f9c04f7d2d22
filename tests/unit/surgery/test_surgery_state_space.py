"""Networks that compute with complex numbers on the way, such as state-space kernels."""

import torch
from torch import nn

import penjing as pj


class Diagonal(nn.Module):
    """A diagonal state-space layer: its kernel along time comes from complex exponentials."""

    def __init__(self, width: int = 8, states: int = 4) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(3, width), nn.Linear(width, 2)
        self.c = nn.Parameter(torch.randn(width, states, 2))
        self.decay, self.turn = (
            nn.Parameter(torch.rand(width, states)),
            nn.Parameter(torch.rand(width, states)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = self.into(x).transpose(1, 2)
        n = u.shape[-1]
        poles = (-self.decay.exp() + 1j * self.turn).unsqueeze(-1) * torch.arange(n)
        kernel = 2 * torch.einsum("hn,hnl->hl", torch.view_as_complex(self.c), poles.exp()).real
        y = torch.fft.irfft(torch.fft.rfft(u, n=2 * n) * torch.fft.rfft(kernel, n=2 * n), n=2 * n)[..., :n]
        return self.out(y.transpose(1, 2))


def test_a_state_space_layer_shrinks():
    torch.manual_seed(0)
    model, example = Diagonal().eval(), torch.randn(2, 6, 3)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert not plan.skipped
    assert slim.c.shape == (4, 2, 2)  # a product of weights holds no heads
    assert pj.verify(model, slim, plan, torch.randn(1, 9, 3)).passed
