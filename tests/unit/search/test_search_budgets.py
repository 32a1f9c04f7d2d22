"""Budgets on bytes and on several figures together."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.measure import peak_memory
from penjing.search._memory_model import Moments
from penjing.structure import trace

X = torch.randn(1, 3, 16, 16)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip


def held(model: nn.Module, batch: int = 8) -> float:
    return peak_memory(model, X, batch_size=batch).value


def stored(model: nn.Module) -> int:
    tensors = (*model.parameters(), *model.buffers())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def macs(model: nn.Module) -> int:
    return pj.measure(model, X, latency=False, memory=False).macs


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


FIGURES: dict[str, Callable[[nn.Module], float]] = {
    "size": stored,
    "memory": held,
    "macs": macs,
    "params": params,
}


def by_loss() -> dict[str, object]:
    batches = [(torch.randn(8, 3, 16, 16), torch.randint(10, (8,)))]
    return {
        "scope": "loss",
        "criterion": "taylor",
        "calibration": batches,
        "loss": lambda out, batch: nn.functional.cross_entropy(out, batch[1]),
    }


@pytest.mark.parametrize(
    ("budget", "options"),
    [
        ("size<=40KB", {}),
        ("memory<=0.6x,params<=0.9x", {}),
        ("memory<=0.7x", {"scope": "global"}),
        ("size<=0.5x", by_loss()),
        ("macs<=0.5x,size<=0.45x,memory<=0.6x", by_loss()),
    ],
)
def test_every_limit_is_met_and_the_tightest_used(budget: str, options: dict[str, object]) -> None:
    model = net()
    slim, plan = pj.prune(model, X, budget=budget, batch_size=8, **options)  # type: ignore[arg-type]
    shares = {
        limit.metric: FIGURES[limit.metric](slim) / limit.absolute(FIGURES[limit.metric](model))
        for limit in pj.Budget.parse(budget).limits
    }
    assert 0.95 <= max(shares.values()) <= 1
    assert pj.verify(model, slim, plan, X).passed
    told = [text for text in plan.policies if text.startswith("Of the budget")]
    bound = max(shares, key=shares.__getitem__)
    assert [text.startswith(f"Of the budget, {bound} bound: {shares[bound]:.3f} ") for text in told] == (
        [True] if len(shares) > 1 else []
    )


def test_memory_is_that_of_the_asked_batch() -> None:
    model = net()
    for batch in (1, 32):
        slim, _ = pj.prune(model, X, budget="memory<=0.6x", batch_size=batch)
        assert 0.95 * 0.6 <= held(slim, batch) / held(model, batch) <= 0.6


def test_the_trace_knows_the_worst_moment() -> None:
    """The second convolution reads [1, 32, 16, 16] and makes [1, 64, 16, 16]; ReLU makes as much again, in turn."""
    structure = trace(net(), X)
    whole = {i: len(group) for i, group in enumerate(structure.groups)}
    pixels = 16 * 16 * 4
    assert Moments(structure).at(whole).max() == pixels * (3 + 64 + 64)


def test_memory_in_place_is_counted_once() -> None:
    one = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 1)).eval()
    structure = trace(one, X)
    whole = {i: len(group) for i, group in enumerate(structure.groups)}
    assert Moments(structure).at(whole).max() == 16 * 16 * 4 * (3 + 8 + 8)


def test_what_cannot_be_met_is_named_per_metric() -> None:
    with pytest.raises(pj.BudgetError) as caught:
        pj.prune(net(), X, budget="macs<=0.5x,size<=0.01KB", batch_size=8)
    text = str(caught.value)
    assert "size<=0.01KB cannot be met: the nearest that can is size<=" in text
    assert "what is asked of macs is in reach" in text
    assert set(caught.value.missed) == {"size"}
    assert caught.value.metric == "size"


def test_the_nearest_that_is_named_can_be_met() -> None:
    with pytest.raises(pj.BudgetError) as caught:
        pj.prune(net(), X, budget="memory<=0.001x,size<=0.0001x", batch_size=8)
    assert set(caught.value.missed) == {"memory", "size"}
    size = caught.value.missed["size"]
    slim, _ = pj.prune(net(), X, budget=f"size<={size / 1000}KB")
    assert stored(slim) == size


class Encoder(nn.Module):
    """Its attention's memory is not what the trace predicts of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, dropout=0.0)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).mean(1))


def test_the_nearest_memory_was_measured() -> None:
    torch.manual_seed(0)
    model, x = Encoder().eval(), torch.randn(4, 16, 64)
    with pytest.raises(pj.BudgetError) as caught:
        pj.prune(model, x, budget="memory<=0.0001x")
    nearest = caught.value.missed["memory"]
    slim, _ = pj.prune(model, x, budget=f"memory<={nearest / 1000}KB")
    assert pj.measure.peak_memory(slim, x).value <= nearest


def test_a_budget_of_bytes_that_holds_is_no_reason_to_cut() -> None:
    model = net()
    slim, plan = pj.prune(model, X, budget="memory<=1x,size<=1x", batch_size=8)
    assert not plan.edits
    assert stored(slim) == stored(model)
