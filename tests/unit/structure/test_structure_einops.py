"""einops: sizes that a pattern is given, reads or computes, in functions and in layers."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from einops import einsum, rearrange, reduce, repeat
from einops.layers.torch import Rearrange
from torch import nn

import penjing as pj

TOKENS = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))


def proven(model: nn.Module, example: Any, **options: Any) -> tuple[Any, pj.Plan]:
    """The network at half its units, with nothing skipped and the proof repeated from outside."""
    torch.manual_seed(0)
    model.eval()
    slim, plan = pj.prune(model, example, **{"ratio": 0.5, **options})
    outcome = pj.verify(model, slim, plan, example)
    assert not plan.skipped
    assert outcome.passed, outcome.cause
    return slim, plan


class Body(nn.Module):
    """Parts by keyword and a forward as a function of them."""

    def __init__(self, body: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.body = body
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args: Any) -> Any:
        return self.body(self, *args)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    weights = (einsum(q, k, "b h i d, b h j d -> b h i j") * scale).softmax(-1)
    return einsum(weights, v, "b h i j, b h j d -> b h i d")


def einops_attention(heads: int | None) -> nn.Module:
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        x = m.start(x)
        q, k, v = rearrange(m.qkv(x), "b n (three h d) -> three b h n d", three=3, h=heads or m.heads)
        y = rearrange(attention(q, k, v, 0.5), "b h n d -> b n (h d)")
        token = repeat(m.token, "1 d -> b 1 d", b=x.shape[0])
        return m.head(reduce(torch.cat([token, x + m.out(y)], 1), "b n d -> b d", "mean"))

    return Body(
        body,
        heads=4,
        start=nn.Linear(16, 24),
        token=nn.Parameter(torch.randn(1, 24)),
        qkv=nn.Linear(24, 3 * 32),
        out=nn.Linear(32, 24),
        head=nn.Linear(24, 3),
    )


def test_einops_finds_heads_that_an_attribute_counts():
    slim, _ = proven(einops_attention(None), TOKENS)
    assert slim.heads == 2
    assert slim.qkv.weight.shape == (48, 12)
    assert slim.out.weight.shape == (12, 16)
    assert slim.token.shape == (1, 12)


def test_einops_with_a_literal_keeps_the_heads_and_says_so():
    model = einops_attention(4)
    slim, _ = proven(model, TOKENS)
    assert slim.qkv.weight.shape == (96, 12)
    causes = {f.cause for f in pj.trace(model, TOKENS).frozen if f.parameter == "qkv.weight" and f.dim == 0}
    assert not causes  # the dims of a head are free: only the number of heads is written in the code
    structure = pj.trace(model, TOKENS)
    assert not [g for g in structure.groups if g.granularity == "head"]
    slim, _ = proven(model, TOKENS, granularity=("head_dim",))
    assert slim.qkv.weight.shape == (48, 24)


def test_a_layer_that_einops_makes_anew_when_copied_keeps_its_heads():
    def body(m: Any, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (m.split(t) for t in m.qkv(x).chunk(3, -1))
        return m.head(m.out(m.join(attention(q, k, v, 0.5))))

    model = Body(
        body,
        split=Rearrange("b n (one h d) -> b h (one n) d", one=1, h=4),
        join=Rearrange("b h n d -> b n (h d)"),
        qkv=nn.Linear(16, 96),
        out=nn.Linear(32, 24),
        head=nn.Linear(24, 3),
    )
    slim, plan = proven(model, TOKENS)
    assert slim.qkv.weight.shape == (48, 16)
    again = pj.apply(model, pj.Plan.from_json(plan.to_json()))
    assert torch.equal(again(TOKENS), slim(TOKENS))
    assert copy.deepcopy(slim).split.axes_lengths == {"one": 1, "h": 2}
