"""What a network keeps outside its registers: plain tensors shrink, unregistered modules stay, closures move along."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import penjing as pj

TOKENS = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))


class Places(nn.Module):
    """A table of places that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.places = torch.randn(5, 16, generator=generator)
        self.last: torch.Tensor | None = None
        self.up, self.down = nn.Linear(6, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.up(x) + self.places[: x.shape[1]]).relu()
        self.last = y.detach()
        return self.down(y)


def half(model: nn.Module) -> tuple[Any, pj.Plan]:
    slim, plan = pj.prune(model.eval(), TOKENS, ratio=0.5)
    assert not plan.skipped
    assert pj.verify(model, slim, plan, TOKENS).passed
    return slim, plan


def test_plain_tensors_lose_what_they_are_added_to(tmp_path: Path):
    torch.manual_seed(0)
    model = Places()
    slim, plan = half(model)
    kept = [i for i in range(16) if i not in plan.removed["up.weight"][0]]
    assert torch.equal(slim.places, model.places[:, kept])
    assert model.places.shape == (5, 16)
    assert model.last is None
    with torch.no_grad():
        masked = copy.deepcopy(model)
        masked.down.weight[:, list(plan.removed["up.weight"][0])] = 0
        assert torch.allclose(slim(TOKENS), masked(TOKENS), atol=1e-6)
        model(TOKENS)  # what the forward keeps of itself is no part of the network
    half(model)
    pj.save(tmp_path / "m", slim, plan, source="file:places.py:Places")
    assert torch.equal(pj.load(tmp_path / "m", model=Places())(TOKENS), slim(TOKENS))


def test_unregistered_modules_stay_and_the_cause_says_what_to_do():
    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8))
            self.loose, self.end = [nn.Linear(8, 8)], nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.end(self.loose[0](self.start(x)).relu())

    torch.manual_seed(0)
    model = Loose()
    slim, _ = half(model)
    assert (slim.start[0].out_features, slim.start[2].out_features, slim.end.in_features) == (6, 8, 8)
    causes = {(f.parameter, f.dim): f.cause for f in pj.trace(model, TOKENS).frozen}
    assert "nn.ModuleList" in causes["start.2.weight", 0]
    assert "nn.ModuleList" in causes["end.weight", 1]


def test_functions_that_hold_the_network_speak_of_the_smaller_one():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix = nn.Embedding(20, 16), nn.Linear(16, 16)
            self.logits = lambda y: y @ self.table.weight.T

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.logits(self.mix(self.table(ids)))

    torch.manual_seed(0)
    model, ids = Tied().eval(), torch.arange(6).view(2, 3)
    slim, plan = pj.prune(model, ids, ratio=0.5)
    assert slim.table.weight.shape == (20, 8)
    assert pj.verify(model, slim, plan, ids).passed
    with torch.no_grad():
        expected = slim(ids)
        model.table.weight.zero_()
        assert torch.equal(slim(ids), expected)
