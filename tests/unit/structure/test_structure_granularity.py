"""What people call the units of a group."""

import pytest
import torch
from torch import nn

import penjing as pj


class Tagger(nn.Module):
    def __init__(self, kind: str = "LSTM") -> None:
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.read = getattr(nn, kind)(12, 8, batch_first=True, bidirectional=True)
        self.tag = nn.Linear(16, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.tag(self.read(self.words(ids))[0])


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_units_are_hidden_and_tables_are_embed(kind: str):
    model, ids = Tagger(kind).eval(), torch.arange(10).reshape(2, 5)
    assert [(g.granularity, len(g)) for g in pj.trace(model, ids).groups] == [("embed", 12), ("hidden", 8)]
    slim, plan = pj.prune(model, ids, ratio=0.5, granularity=("hidden",))
    assert (slim.read.hidden_size, slim.read.input_size) == (4, 12)
    assert pj.verify(model, slim, plan, ids).passed


def test_a_transformer_has_embed_neuron_and_heads():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = nn.Sequential(
        nn.Conv1d(3, 16, 1), nn.Flatten(2), nn.Linear(6, 16), layer, nn.Linear(16, 2)
    ).eval()
    found = {g.granularity for g in pj.trace(model, torch.randn(2, 3, 6)).groups}
    assert found == {"embed", "neuron", "head", "head_dim"}


def test_convolutions_have_channels_and_groups():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, groups=4), nn.Conv2d(16, 2, 1))
    found = {g.granularity for g in pj.trace(model, torch.randn(1, 3, 8, 8)).groups}
    assert found == {"channel", "group"}


class PlacesByOneHot(nn.Module):
    """Row and column positions are looked up by a batched product with a table: no attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.table = nn.Linear(5, 12), nn.Parameter(torch.randn(2, 4, 12))
        self.up, self.down, self.out = nn.Linear(12, 20), nn.Linear(20, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        chosen = nn.functional.one_hot(places, 4).to(x.dtype)
        h = self.embed(x) + (chosen @ self.table.to(x.dtype)).sum(0)
        return self.out(h + self.down(self.up(h).relu()))


def test_a_table_read_by_a_batched_product_is_no_attention():
    model, x = PlacesByOneHot().eval(), (torch.randn(6, 5), torch.randint(0, 4, (2, 6)))
    found = {(g.granularity, len(g)) for g in pj.trace(model, x).groups}
    assert not {kind for kind, _ in found} & {"head", "head_dim"}
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert (slim.embed.out_features, slim.table.shape[-1]) == (6, 6)
    assert pj.verify(model, slim, plan, x).passed
