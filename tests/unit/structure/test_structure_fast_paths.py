"""Attention that torch fuses or compiles is followed as the plain function it stands for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import penjing as pj
from penjing.structure import fast_paths_off

TOKENS = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))


def causal(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return q >= k


def sloped(
    s: torch.Tensor, b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor
) -> torch.Tensor:
    return s + (k - q) / (1 + h)


class Flexible(nn.Module):
    """Four query heads on two of keys and values."""

    def __init__(
        self, score: Callable[..., torch.Tensor] | None, mask: Callable[..., torch.Tensor] | None
    ) -> None:
        super().__init__()
        self.heads, self.score, self.mask = 4, score, mask
        self.start, self.out, self.head = nn.Linear(16, 24), nn.Linear(32, 24), nn.Linear(24, 3)
        self.q, self.k, self.v = nn.Linear(24, 32), nn.Linear(24, 16), nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        x = self.start(x)
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = (t.view(b, n, -1, q.shape[-1]).transpose(1, 2) for t in (self.k(x), self.v(x)))
        blocks = create_block_mask(self.mask, None, None, n, n, device="cpu") if self.mask else None
        y: Any = flex_attention(q, k, v, self.score, blocks, enable_gqa=True)
        return self.head(x + self.out(y.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize(("score", "mask"), [(None, None), (None, causal), (sloped, causal)])
def test_flexible_attention_written_out_is_the_function_itself(score: Any, mask: Any):
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    blocks = create_block_mask(mask, None, None, 6, 6, device="cpu") if mask else None
    with fast_paths_off():
        found: Any = flex_attention(q, k, v, score, blocks, enable_gqa=True)
    places = [
        torch.arange(n).view([-1 if a == i else 1 for a in range(4)]) for i, n in enumerate((2, 4, 6, 6))
    ]
    scores = q @ k.repeat_interleave(2, 1).mT / 8**0.5
    scores = score(scores, *places) if score else scores
    scores = scores.masked_fill(~mask(*places), float("-inf")) if mask else scores
    assert torch.allclose(found, scores.softmax(-1) @ v.repeat_interleave(2, 1), atol=1e-6)


def test_flexible_attention_loses_heads_with_their_keys_and_values():
    torch.manual_seed(0)
    model = Flexible(None, None).eval()
    slim, plan = pj.prune(model, TOKENS, ratio=0.5)
    assert not plan.skipped
    assert (slim.q.out_features, slim.k.out_features, slim.heads, slim.start.out_features) == (16, 8, 2, 12)
    assert pj.verify(model, slim, plan, TOKENS).passed
