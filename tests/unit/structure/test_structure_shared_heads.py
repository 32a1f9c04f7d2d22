"""Queries that share key/value heads, and caches that a network returns."""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj


class Cache:
    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []


@dataclass
class Output:
    logits: torch.Tensor
    cache: object


class GroupedQueries(nn.Module):
    """Two query heads per key/value head; the keys go into a cache that is returned."""

    def __init__(self, kv: int = 2, repeats: int = 2, width: int = 4) -> None:
        super().__init__()
        self.kv, self.repeats, self.width = kv, repeats, width
        inner = kv * repeats * width
        self.q, self.k, self.v = (nn.Linear(12, n) for n in (inner, kv * width, kv * width))
        self.inp, self.out, self.head = nn.Linear(5, 12), nn.Linear(inner, 12), nn.Linear(12, 3)
        self.wrap = Output

    def heads(self, x: torch.Tensor, repeats: int) -> torch.Tensor:
        x = x.view(*x.shape[:-1], -1, self.width).transpose(1, 2)
        batch, heads, length, width = x.shape
        x = x[:, :, None].expand(batch, heads, repeats, length, width)
        return x.reshape(batch, heads * repeats, length, width)

    def forward(self, x: torch.Tensor, cache: Cache | None = None) -> object:
        x = self.inp(x)
        cache = cache or Cache()
        k, v = self.heads(self.k(x), self.repeats), self.heads(self.v(x), self.repeats)
        cache.keys.append(k)
        y = F.scaled_dot_product_attention(self.heads(self.q(x), 1), k, v, scale=0.5).transpose(1, 2)
        return self.wrap(self.head(x + self.out(y.reshape(*x.shape[:-1], -1))), cache)


@pytest.fixture
def model() -> GroupedQueries:
    torch.manual_seed(0)
    return GroupedQueries(kv=4, repeats=2).eval()


def test_a_key_value_head_takes_its_queries(model: GroupedQueries):
    x = torch.randn(2, 2, 5)  # batch, length and queries per head are all 2
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=("kv_head",))
    proof = pj.verify(model, slim, plan, x)
    assert proof.passed
    assert proof.max_error <= 1e-9
    assert (slim.q.out_features, slim.k.out_features, slim.v.out_features) == (16, 8, 8)
    removed = plan.removed
    keys = {row // 4 for row in removed["k.weight"][0]}
    assert {row // 8 for row in removed["q.weight"][0]} == keys


def test_places_in_a_key_value_head_are_units_on_request(model: GroupedQueries):
    found = {g.granularity for g in pj.trace(model, torch.randn(2, 3, 5)).groups}
    assert found - {"head_dim"} == {"embed", "kv_head", "group"}


def test_a_cache_beside_the_output_is_no_contract_and_a_field_is(model: GroupedQueries):
    x = torch.randn(2, 3, 5)
    assert "k.weight" not in {f.parameter for f in pj.trace(model, x).frozen}
    model.wrap = lambda logits, cache: (logits, cache.keys[0])
    causes = {f.cause for f in pj.trace(model, x).frozen if f.parameter == "k.weight"}
    assert any("network output" in cause for cause in causes)


def test_an_object_that_the_network_does_not_take_back_is_a_contract(model: GroupedQueries):
    x = torch.randn(2, 3, 5)
    model.wrap = lambda logits, cache: {"logits": logits, "keys": cache}
    causes = {f.cause for f in pj.trace(model, x).frozen if f.parameter == "k.weight"}
    assert any("network output" in cause for cause in causes)
