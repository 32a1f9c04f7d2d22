"""Scope "loss": units go where a MAC or parameter saved costs least loss, whatever group they are of."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core import Budget
from penjing.core._groups import PruneGroup
from penjing.search import CostModel
from penjing.search._by_loss import curve
from penjing.search._choose import Chooser
from penjing.search._prices import Prices
from penjing.search._select import Rounding

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU(),
        nn.Conv2d(32, 24, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10),
    )  # fmt: skip


class Residual(nn.Module):
    """Attention beside a residual stream: dims that several groups share, and a stream that meets itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.out = nn.Linear(5, 24), nn.Linear(24, 24), nn.Linear(24, 4)
        self.attention = nn.MultiheadAttention(24, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        x = x + self.inner(torch.cat([x[..., :12], x[..., 12:]], -1)).relu()
        return self.out(x + self.attention(x, x, x, need_weights=False)[0])


def gives(scores: dict[str, np.ndarray], in_loss: str = "additive") -> Any:
    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        return scores[group.name]

    score.in_loss = in_loss  # type: ignore[attr-defined]
    return score


def random_scores(structure: pj.Structure, seed: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {g.name: draw.random(len(g)) * draw.choice([0.1, 1, 10]) for g in structure.groups}


@pytest.mark.parametrize(("model", "x"), [(network(), EXAMPLE), (Residual(), torch.randn(2, 6, 5))])
def test_prices_are_the_cost_of_a_cut(model: nn.Module, x: torch.Tensor):
    structure = pj.trace(model, x)
    prices, exact = Prices(structure, ("macs", "params")), CostModel(structure)
    draw = np.random.default_rng(0)
    for _ in range(5):
        kept = {i: int(draw.integers(1, len(g) + 1)) for i, g in enumerate(structure.groups)}
        gone = structure.gone({g.name: range(len(g) - kept[i]) for i, g in enumerate(structure.groups)})
        for metric in ("macs", "params"):
            assert prices.total(metric, kept) == getattr(exact, metric)(gone)
        narrower = {**kept, 0: 1}
        saved = prices.total("macs", kept) - prices.total("macs", narrower)
        assert prices.share("macs", (0,), kept) - prices.share("macs", (0,), narrower) == saved


def test_curves():
    np.testing.assert_allclose(curve(np.array([3.0, 1.0, 2.0]), "additive"), [0, 1, 3, 6])
    np.testing.assert_allclose(curve(np.array([3.0, 1.0, 2.0]), "cumulative"), [0, 1, 2, 3])


def brute_force(structure: pj.Structure, scores: dict[str, np.ndarray], limit: float, step: int) -> float:
    """The least loss of all widths that meet the limit, by trying every combination."""
    cost, best = CostModel(structure), float("inf")
    names = [g.name for g in structure.groups]
    allowed = [[k for k in range(step, len(g) + 1, step) if k >= 0.1 * len(g)] for g in structure.groups]
    for kept in itertools.product(*allowed):
        going = {n: np.argsort(scores[n])[: len(scores[n]) - k] for n, k in zip(names, kept, strict=True)}
        if cost.macs(structure.gone({n: u.tolist() for n, u in going.items()})) <= limit:
            best = min(best, sum(float(scores[n][u].sum()) for n, u in going.items()))
    return best


@pytest.mark.parametrize("share", [0.7, 0.4, 0.2])
@pytest.mark.parametrize("seed", range(2))
def test_near_the_best_of_all_widths(share: float, seed: int):
    structure = pj.trace(network(), EXAMPLE)
    scores = random_scores(structure, seed)
    limit = share * CostModel(structure).macs(structure.gone({}))
    chooser = Chooser(structure=structure, scores=scores, rounding=Rounding(round_to=4), scope="loss",
                      in_loss="additive")  # fmt: skip
    chosen = chooser.for_budget(structure.groups, Budget.parse(f"macs<={share}x")).selection
    loss = sum(float(scores[name][list(units)].sum()) for name, units in chosen.items())
    whole = sum(s.sum() for s in scores.values())
    assert loss <= brute_force(structure, scores, limit, 4) + 0.03 * whole


@pytest.mark.parametrize("budget", ["macs<=0.65x", "macs<=0.25x", "params<=0.5x", "macs<=0.5x,params<=0.3x"])
@pytest.mark.parametrize("in_loss", ["additive", "cumulative"])
def test_budgets_are_met_and_used(budget: str, in_loss: str):
    model = network()
    scores = random_scores(pj.trace(model, EXAMPLE), 1)
    slim, plan = pj.prune(model, EXAMPLE, budget=budget, scope="loss", criterion=gives(scores, in_loss))
    before, after = (pj.measure(m, EXAMPLE, latency=False, memory=False) for m in (model, slim))
    reached = []
    for limit in Budget.parse(budget).limits:
        reached.append(getattr(after, limit.metric) / limit.absolute(getattr(before, limit.metric)))
    assert 0.95 <= max(reached) <= 1
    assert pj.verify(model, slim, plan, EXAMPLE).passed


def test_units_go_where_they_cost_least_per_saving():
    """Two equal convolutions in a row, one a hundred times as important: the other pays for the budget."""
    model = network()
    groups = pj.trace(model, EXAMPLE).groups
    scores = {g.name: np.linspace(1, 2, len(g)) * (100 if i == 1 else 1) for i, g in enumerate(groups)}
    slim, _ = pj.prune(model, EXAMPLE, budget="macs<=0.6x", scope="loss", criterion=gives(scores))
    assert slim[3].out_channels == 32
    assert slim[0].out_channels < 12


def test_groups_with_tied_counts_move_together():
    class Tied(nn.Module):
        """`reshape(B, N, C)` ties the number of heads to the stream's width."""

        def __init__(self) -> None:
            super().__init__()
            self.heads = 4
            self.embed, self.qkv, self.out = nn.Linear(5, 64), nn.Linear(64, 192), nn.Linear(64, 3)
            self.first, self.second = nn.Linear(64, 96), nn.Linear(96, 64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            b, n, c = x.shape
            q, k, v = (
                self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
            )
            y = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).reshape(b, n, c)
            return self.out(x + self.second(self.first(x + y).relu()))

    model, x = Tied(), torch.randn(2, 4, 5)
    scores = random_scores(pj.trace(model, x), 0)
    slim, plan = pj.prune(model, x, budget="macs<=0.5x", scope="loss", criterion=gives(scores))
    assert pj.verify(model, slim, plan, x).passed
    ratio = (
        pj.measure(slim, x, latency=False, memory=False).macs
        / pj.measure(model, x, latency=False, memory=False).macs
    )
    assert ratio <= 0.5


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(pj.UsageError, match=r"criterion 'l2' do not allow.*taylor"):
        pj.prune(network(), EXAMPLE, budget="macs<=0.5x", scope="loss", criterion="l2")
    with pytest.raises(pj.UsageError, match="in_loss"):
        pj.prune(
            network(), EXAMPLE, budget="macs<=0.5x", scope="loss", criterion=lambda g, m: np.ones(len(g))
        )
    with pytest.raises(pj.UsageError, match="needs a budget"):
        pj.prune(network(), EXAMPLE, ratio=0.5, scope="loss", criterion="taylor")
    with pytest.raises(pj.UsageError, match="did you mean 'taylor'"):
        pj.prune(network(), EXAMPLE, budget="macs<=0.5x", scope="loss", criterion="tailor")
    with pytest.raises(pj.BudgetError, match="nearest"):
        pj.prune(network(), EXAMPLE, budget="macs<=0.001x", scope="loss",
                 criterion=gives(random_scores(pj.trace(network(), EXAMPLE), 0)))  # fmt: skip


def test_taylor_by_loss_beats_one_ratio_for_all():
    """A layer that only copies: by loss it gives up its spare units before a working layer does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    with torch.no_grad():
        model[2].weight[8:] = 0
        model[2].bias[8:] = 0
    x = torch.randn(64, 8)
    batches = [(x, model(x).argmax(1))]

    def loss(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        return F.cross_entropy(outputs, batch[1])

    kept = {}
    for scope in ("uniform", "loss"):
        slim, _ = pj.prune(model, x[:1], budget="macs<=0.45x", criterion="taylor", scope=scope,
                           calibration=batches, loss=loss)  # fmt: skip
        kept[scope] = slim[2].out_features, F.cross_entropy(slim(x), batches[0][1]).item()
    assert kept["loss"][0] < 12
    assert kept["loss"][1] < kept["uniform"][1]
