"""A trace leaves nothing behind in memoised functions, tables of modules and classes, or buffers made on the way."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import penjing as pj

TOKENS = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
_TABLE: dict[int, torch.Tensor] = {}
_LATEST: torch.Tensor | None = None


@functools.lru_cache
def split_sizes(shape: tuple[int, ...], heads: int) -> tuple[int, int, int, int]:
    """Memoised by value, as einops does: every layer asks with the same sizes."""
    return shape[0], shape[1], heads, shape[2] // heads


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = 4
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (t.reshape(split_sizes(t.shape, self.heads)).transpose(1, 2) for t in parts)
        weights = (q @ k.transpose(2, 3) / 2).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).flatten(2))


def test_memoised_sizes_keep_each_layer_its_own_heads():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), Layer(), Layer(), nn.Linear(16, 3)).eval()
    for _ in range(2):  # the second time finds what a first trace might have left in the memory
        slim, plan = pj.prune(model, TOKENS, ratio=0.5)
        assert not plan.skipped
        assert [layer.heads for layer in slim[1:3]] == [2, 2]
        assert slim[1].qkv.weight.shape == (24, 8)
        assert pj.verify(model, slim, plan, TOKENS).passed
        assert split_sizes((2, 5, 16), 4) == (2, 5, 4, 4)
        assert all(type(n) is int for n in split_sizes((2, 5, 16), 4))


def by_module_table(self: nn.Module, y: torch.Tensor) -> torch.Tensor:
    if y.shape[1] not in _TABLE:
        _TABLE[y.shape[1]] = y.new_ones(y.shape[1], 1) / 2
    return y * _TABLE[y.shape[1]]


def by_module_global(self: nn.Module, y: torch.Tensor) -> torch.Tensor:
    global _LATEST
    if _LATEST is None:
        _LATEST = y.new_ones(y.shape[1], 1) / 2
    return y * _LATEST


def by_class_table(self: Any, y: torch.Tensor) -> torch.Tensor:
    self.table.setdefault(y.shape[1], y.new_ones(y.shape[1], 1) / 2)
    return y * self.table[y.shape[1]]


def by_method(self: Any, y: torch.Tensor) -> torch.Tensor:
    return y * self.half(y.shape[1])


def _decorated(function: Callable[[int], torch.Tensor]) -> Callable[[int], torch.Tensor]:
    remembered = functools.lru_cache(function)

    @functools.wraps(function)
    def wrapper(n: int) -> torch.Tensor:
        return remembered(n)

    return wrapper


@_decorated
def halves(n: int) -> torch.Tensor:
    return torch.ones(n, 1, device=DEVICE) / 2


DEVICE: torch.device | None = None


def by_decorated_function(self: Any, y: torch.Tensor) -> torch.Tensor:
    global DEVICE
    DEVICE = y.device
    return y * halves(y.shape[1])


def by_static_method(self: Any, y: torch.Tensor) -> torch.Tensor:
    global DEVICE
    DEVICE = y.device
    return y * self.still(y.shape[1])


def by_decorated_static_method(self: Any, y: torch.Tensor) -> torch.Tensor:
    global DEVICE
    DEVICE = y.device
    return y * self.decorated(y.shape[1])


def by_new_buffer(self: nn.Module, y: torch.Tensor) -> torch.Tensor:
    if "halves" not in self._buffers:
        self.register_buffer("halves", y.new_ones(y.shape[1], 1) / 2, persistent=False)
    return y * self._buffers["halves"]


class Remembering(nn.Module):
    table: dict[int, torch.Tensor] = {}  # shared by all instances, as people do it

    def __init__(self, remember: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.remember = remember
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 3)

    @functools.lru_cache  # noqa: B019 - as people do it
    def half(self, n: int) -> torch.Tensor:
        return self.scale.expand(n, 1)

    @staticmethod
    @functools.lru_cache
    def still(n: int) -> torch.Tensor:
        return torch.ones(n, 1, device=DEVICE) / 2

    @staticmethod
    @_decorated
    def decorated(n: int) -> torch.Tensor:
        return torch.ones(n, 1, device=DEVICE) / 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.remember(self, self.up(x)).relu())


@pytest.mark.parametrize(
    "remember",
    [
        by_module_table,
        by_module_global,
        by_class_table,
        by_method,
        by_decorated_function,
        by_static_method,
        by_decorated_static_method,
        by_new_buffer,
    ],
)
def test_nothing_of_the_trace_is_left_for_the_next_call(
    remember: Callable[[Any, torch.Tensor], torch.Tensor],
):
    global _LATEST
    torch.manual_seed(0)
    model = Remembering(lambda self, y: remember(self, y)).eval()
    slim, plan = pj.prune(model, TOKENS, ratio=0.5)
    assert slim.up.out_features == 12
    assert pj.verify(model, slim, plan, TOKENS).passed
    pj.trace(model, TOKENS)
    assert not _TABLE
    assert _LATEST is None
    assert not Remembering.table
    assert "halves" not in model._buffers
    with torch.no_grad():
        expected = model.down((model.up(TOKENS) / 2).relu())
        assert torch.allclose(model(TOKENS), expected)
    _LATEST = None
    _TABLE.clear()
    Remembering.table.clear()
