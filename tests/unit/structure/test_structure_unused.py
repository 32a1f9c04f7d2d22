"""What a forward computes for its shape alone holds nothing back."""

import pytest
import torch
from torch import nn

import penjing as pj


class Positions(nn.Module):
    """Adds a learned position per token; the tokens are counted on a slice of their embeddings."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(20, 12), nn.Embedding(16, 12)
        self.out, self.place = nn.Linear(12, 3), place

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids)
        counted = x[:, :, self.place]
        return self.out((x + self.positions(torch.arange(counted.shape[1]))).relu())


IDS = torch.arange(10).reshape(2, 5)


@pytest.mark.parametrize("place", [0, -1])
def test_a_slice_taken_for_its_shape_leaves_the_dim_free(place: int):
    model = Positions(place).eval()
    slim, plan = pj.prune(model, IDS, ratio=0.5)
    assert slim.words.embedding_dim == 6
    assert pj.verify(model, slim, plan, IDS).passed


def test_a_slice_whose_values_are_used_keeps_the_dim():
    class Used(Positions):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) * self.words(ids)[:, :, -1:].sum() + self.words(ids)[:, :, -1].sum()

    causes = {f.cause for f in pj.trace(Used(0).eval(), IDS).frozen if f.parameter == "words.weight"}
    assert any("picks one index" in cause for cause in causes)


def test_a_slice_at_a_place_that_could_go_keeps_the_dim():
    causes = {f.cause for f in pj.trace(Positions(7).eval(), IDS).frozen if f.parameter == "words.weight"}
    assert any("picks one index" in cause for cause in causes)
