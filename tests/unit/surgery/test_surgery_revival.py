"""A network that falls silent on the way is proven all the same."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core import VerificationError
from penjing.structure._rules import RULES
from penjing.structure._rules._elementwise import factory
from penjing.surgery._revival import Deaf

aten = torch.ops.aten


class Silent(nn.Module):
    """Nothing passes the ReLU: the output is the last bias, whatever lies before it."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 12
        self.into, self.out = nn.Linear(4, 12), nn.Linear(12, 3)
        self.kernel, self.shift = nn.Parameter(torch.randn(12, 12)), nn.Parameter(-50 - torch.rand(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.kernel + torch.eye(self.width, dtype=x.dtype)
        return self.out(F.relu(F.linear(self.into(x), weight) + self.shift))


def test_a_silent_network_is_proven():
    torch.manual_seed(0)
    model, example = Silent(), torch.randn(2, 4)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.kernel.shape == (6, 6)
    assert pj.verify(model, slim, plan, example).passed


def test_a_wrong_rule_shows_where_the_output_is_silent(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    monkeypatch.setitem(RULES, aten.eye, factory)  # rows and columns of the identity go apart
    model, example = Silent(), torch.randn(2, 4)
    with pytest.raises(VerificationError, match="differ"):
        pj.prune(model, example, ratio=0.5)


class Attending(nn.Module):
    """Attention whose keys are turned within each head."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(7, 8), nn.Linear(16, 3)
        self.q, self.k, self.v = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(8, 16)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        scores = self.q(x) @ self.k(x).roll(1, -1).transpose(1, 2)
        return self.out(scores.softmax(-1) @ self.v(x))


@pytest.mark.parametrize(
    "ids", [torch.ones(2, 5, dtype=torch.long), torch.tensor([[1], [2]])], ids=["equal", "one"]
)
def test_scores_between_equal_tokens_are_compared_too(monkeypatch: pytest.MonkeyPatch, ids: torch.Tensor):
    torch.manual_seed(0)
    monkeypatch.setitem(
        RULES, aten.roll, lambda site: [list(site.labels(site.arg(0)))]
    )  # as if it moved nothing
    wide = {"ratio": {"q*": 0.5}, "granularity": ("neuron", "head_dim", "embed")}
    with pytest.raises(VerificationError, match="differ"):
        pj.prune(Attending(), ids, **wide)


@pytest.mark.parametrize(
    ("words", "segments", "silent"),
    [([3, 4, 3], [0, 0, 0], False), ([3, 3, 3], [0, 0, 0], True), ([3, 3, 3], [0, 1, 0], False)],
)
def test_tokens_are_alike_only_where_every_table_gives_them_the_same(
    words: list[int], segments: list[int], silent: bool
):
    deaf, table = Deaf(), torch.randn(5, 2)
    for ids in (words, segments):
        deaf.meet(aten.embedding, (table, torch.tensor([ids])))
    assert bool(deaf) is silent


def test_an_order_that_is_drawn_is_the_same_on_both_sides():
    class Shuffled(Attending):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            order = torch.multinomial(torch.ones(ids.shape[1]), ids.shape[1])
            x = (self.table(ids) + torch.arange(ids.shape[1])[:, None])[:, order]
            return self.out((self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1) @ self.v(x)).sum(1)

    torch.manual_seed(0)
    model, ids = Shuffled(), torch.ones(2, 9, dtype=torch.long)
    slim, plan = pj.prune(model, ids, ratio=0.5)
    assert pj.verify(model, slim, plan, ids).passed
