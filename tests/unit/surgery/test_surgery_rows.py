"""Rows taken from a table and changed in place: the reference sees the change through every view of them."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import penjing as pj


class Tokens(nn.Module):
    def __init__(self, change: Callable[["Tokens", torch.Tensor], torch.Tensor], by_id: bool) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(20, 8), nn.Parameter(torch.randn(5, 8))
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)
        self.change, self.by_id = change, by_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        if self.by_id:
            rows = self.table(ids)
        else:
            rows = self.table.weight.index_select(0, ids.flatten()).unflatten(0, ids.shape)
        return self.b(self.a(self.change(self, rows)).relu())


def through_a_view(m: Tokens, rows: torch.Tensor) -> torch.Tensor:
    rows[:, 0] = 0
    return rows


def under_a_view(m: Tokens, rows: torch.Tensor) -> torch.Tensor:
    first = rows[:, 0]
    rows += m.places
    return rows * first.unsqueeze(1)


@pytest.mark.parametrize("by_id", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [through_a_view, under_a_view])
def test_changes_in_place_show_in_every_view(
    change: Callable[[Tokens, torch.Tensor], torch.Tensor], dtype: torch.dtype, by_id: bool
):
    torch.manual_seed(0)
    model, ids = Tokens(change, by_id).eval().to(dtype), torch.randint(0, 20, (2, 5))
    with torch.no_grad():
        slim, plan = pj.prune(model, ids, ratio=0.5)
        assert pj.verify(model, slim, plan, ids).passed
    assert slim.table.weight.shape == (20, 4)
