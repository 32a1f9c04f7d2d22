"""Networks over graphs keep their neighbours in sparse tensors, which stay as they are."""

import pytest
import torch
from torch import nn

import penjing as pj


class Graph(nn.Module):
    def __init__(self, registered: bool, by_name: bool = False) -> None:
        super().__init__()
        self.by_name = by_name
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 3)
        near = (torch.rand(10, 10) > 0.7).float().to_sparse()
        if registered:
            self.register_buffer("near", near)
        else:
            self.near = near

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return self.b((torch.sparse.mm(self.near, h) if self.by_name else self.near @ h).relu())


@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("registered", [True, False])
def test_layers_around_a_sparse_product_shrink(registered: bool, by_name: bool):
    torch.manual_seed(0)
    model, x = Graph(registered, by_name).eval(), torch.randn(10, 6)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.a.out_features == 8
    assert slim.near.layout is torch.sparse_coo
    assert pj.verify(model, slim, plan, x).passed
    with torch.no_grad():
        slim.near.mul_(2)
    assert not pj.verify(model, slim, plan, x).passed


def test_sparse_inputs_are_refused_with_the_way_out():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)).eval()
    with pytest.raises(pj.UsageError, match="to_dense"):
        pj.trace(model, torch.eye(6).to_sparse())
