"""Blocks are found by the graph, dropped by loss, and proven."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.structure import residual_blocks

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Residual(nn.Module):
    def __init__(self, i: int, o: int, strength: float = 1.0) -> None:
        super().__init__()
        self.f = nn.Conv2d(i, o, 3, padding=1)
        self.down = nn.Conv2d(i, o, 1) if i != o else nn.Identity()
        self.strength = strength

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(x) + self.strength * F.relu(self.f(x))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    blocks = [Residual(8, 8, 0.5), Residual(8, 8, 0.0), Residual(8, 12), Residual(12, 12, 2.0)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)]
    return nn.Sequential(nn.Conv2d(3, 8, 1), *blocks, *head).eval()


def far_from(model: nn.Module):
    with torch.no_grad():
        target = model(X)
    return lambda m: float((m(X) - target).detach().square().mean())


def test_blocks_that_change_the_width_are_no_candidates():
    assert [b.path for b in residual_blocks(pj.trace(network(), X))] == ["1", "2", "4"]


def test_the_block_that_does_least_goes_first():
    model = network()
    slim, plan, report = pj.trim(model, X, evaluate=far_from(model), drop=2)
    assert report.candidates == ("1", "2", "4")
    assert [d.block for d in report.dropped] == ["2", "1"]
    assert report.start_loss == 0
    assert report.dropped[0].loss == 0
    assert plan.dropped == ("2", "1")
    assert report.dropped[-1].params == sum(p.numel() for p in slim.parameters())
    assert plan.removed["2.f.weight"] == {0: tuple(range(8))}
    assert plan.removed["2.f.bias"] == {0: tuple(range(8))}
    assert isinstance(slim[2], nn.Identity)
    assert pj.verify(model, slim, plan, X).passed
    assert isinstance(model[2], Residual)


def test_it_stops_before_the_loss_rises_too_far():
    model = network()
    _, _, report = pj.trim(model, X, evaluate=far_from(model), max_loss_increase=1e-6)
    assert [d.block for d in report.dropped] == ["2"]
    assert "raise the loss" in report.stopped


def test_it_stops_when_the_budget_holds():
    model = network()
    slim, _, report = pj.trim(model, X, evaluate=far_from(model), budget="params<=0.8x")
    assert sum(p.numel() for p in slim.parameters()) <= 0.8 * sum(p.numel() for p in model.parameters())
    assert report.stopped == "the budget holds"


def test_an_impossible_budget_names_the_nearest():
    model = network()
    with pytest.raises(pj.BudgetError) as caught:
        pj.trim(model, X, evaluate=far_from(model), budget="params<=0.01x")
    assert caught.value.nearest is not None


def test_no_stopping_rule_and_no_candidates():
    with pytest.raises(pj.UsageError, match="drop=1"):
        pj.trim(network(), X, evaluate=lambda m: 0.0)
    _, plan, report = pj.trim(nn.Sequential(nn.Conv2d(3, 4, 1)), X, evaluate=lambda m: 0.0, drop=1)
    assert plan.edits == ()
    assert report.stopped == "no block is left to drop"


def test_a_nan_loss_is_never_the_best():
    model = network()
    calls = []

    def evaluate(m: nn.Module) -> float:
        calls.append(1)
        return float("nan") if isinstance(m[2], nn.Identity) else 1.0

    _, plan, _ = pj.trim(model, X, evaluate=evaluate, drop=1)
    assert plan.dropped == ("1",)
    assert len(calls) == 4
