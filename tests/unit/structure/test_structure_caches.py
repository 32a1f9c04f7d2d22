"""Tables of computed values that a network fills when it evaluates, and drops when it trains."""

import pytest
import torch
from torch import nn

import penjing as pj


class Biased(nn.Module):
    """Attention with a bias per head and distance, looked up once and kept, as several libraries do it."""

    def __init__(self, heads: int = 4, positions: int = 6) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(8, 3 * 4 * heads), nn.Linear(4 * heads, 8)
        self.biases = nn.Parameter(torch.randn(heads, positions))
        places = torch.arange(positions)
        self.register_buffer("distances", (places[:, None] - places).abs(), persistent=False)
        self.kept: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def train(self, mode: bool = True) -> "Biased":
        super().train(mode)
        if mode:
            self.kept = {}
        return self

    def by_distance(self, device: torch.device) -> torch.Tensor:
        if self.training:
            return self.biases.exp()[:, self.distances]
        if str(device) not in self.kept:
            self.kept[str(device)] = self.biases.exp()[:, self.distances]
        return self.kept[str(device)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 0.5 + self.by_distance(x.device)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, length, -1))


def evaluated() -> tuple[Biased, torch.Tensor]:
    torch.manual_seed(0)
    model, x = Biased().eval(), torch.randn(2, 6, 8)
    with torch.no_grad():
        model(x)
    return model, x


def test_heads_shrink_though_an_evaluation_has_filled_the_cache():
    model, x = evaluated()
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.heads == 2
    assert slim.biases.shape == (2, 6)
    assert pj.verify(model, slim, plan, x).passed
    with torch.no_grad():
        assert slim(x).shape == (2, 6, 8)
        assert slim.kept["cpu"].shape == (2, 6, 6)
    assert pj.verify(model, slim, plan, x).passed


def test_what_the_network_kept_is_still_there():
    model, x = evaluated()
    table, held = model.kept, model.kept["cpu"]
    pj.prune(model, x, ratio=0.5)
    assert model.kept is table
    assert model.kept["cpu"] is held
    assert not model.training


def test_a_plan_empties_the_cache_of_the_network_it_is_applied_to():
    model, x = evaluated()
    _, plan = pj.prune(Biased().eval(), x, ratio=0.5)
    slim = pj.apply(model, plan)
    assert not slim.kept
    assert set(model.kept) == {"cpu"}


@pytest.mark.parametrize("mode", [True, False])
def test_modes_stay(mode: bool):
    model, x = evaluated()
    model.train(mode)
    model.out.eval()
    slim, _ = pj.prune(model, x, ratio=0.5)
    assert (slim.training, slim.out.training) == (mode, False)
    assert (model.training, model.out.training) == (mode, False)
