"""Fused projections that hold, per key/value head, its queries, its key and its value side by side."""

import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj


class Grouped(nn.Module):
    def __init__(self, width: int = 24, heads: int = 8, shared: int = 2) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.into, self.out = nn.Linear(5, width), nn.Linear(width, 3)
        self.qkv = nn.Linear(width, (heads + 2 * shared) * self.size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        y = self.qkv(self.into(x)).view(b, n, self.shared, self.heads // self.shared + 2, self.size)
        q, k, v = y[..., :-2, :], y[..., [-2], :], y[..., [-1], :]
        k, v = k.expand(q.shape), v.expand(q.shape)
        q, k, v = (t.flatten(2, 3).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, n, self.heads * self.size))


def test_a_key_value_head_goes_with_its_queries():
    torch.manual_seed(0)
    model, example = Grouped().eval(), torch.randn(2, 6, 5)
    slim, plan = pj.prune(model, example, ratio=0.5, protect=("into",))
    assert not plan.skipped
    assert (slim.shared, slim.heads, slim.qkv.out_features, slim.out.in_features) == (1, 4, 18, 12)
    assert pj.verify(model, slim, plan, torch.randn(1, 9, 5)).passed
