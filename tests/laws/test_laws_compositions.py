"""Random compositions of constructions: a rule that is right alone may be wrong next to another.

Sizes are chosen so that batch, pixels, channels and parts often have the same number.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_laws_networks import outputs, zeroed
from torch import nn

import penjing as pj


class Chain(nn.Module):
    """Steps with their own modules, one after another, each (modules, x) -> x."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        self.steps: list[Callable[[Any, torch.Tensor], torch.Tensor]] = []

    def add(self, step: Callable[[Any, torch.Tensor], torch.Tensor], *modules: nn.Module) -> None:
        self.parts.append(nn.ModuleList(modules))
        self.steps.append(step)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part, step in zip(self.parts, self.steps, strict=True):
            x = step(part, x)
        return x


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, -1, h, w)


def cut_in_two(m: Any, x: torch.Tensor) -> torch.Tensor:
    one, two = x.chunk(2, 1)
    return torch.cat([m[0](two), one], 1)


def gate(m: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(m[1](F.relu(m[0](x.mean((2, 3), keepdim=True)))))


def tokens(m: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    t = x.flatten(2).transpose(1, 2)
    return (t + m[1](F.gelu(m[0](t)))).transpose(1, 2).reshape(b, c, h, w)


def attend(m: Any, x: torch.Tensor) -> torch.Tensor:
    b, c, h, w = x.shape
    q, k, v = m[0](x).reshape(b, 3, c, h * w).unbind(1)
    return x + (v @ (q.transpose(1, 2) @ k).softmax(-1).transpose(1, 2)).reshape(b, c, h, w)


def halves(m: Any, x: torch.Tensor) -> torch.Tensor:
    n = x.shape[1] // 2
    return x[:, :n] * torch.tanh(x[:, n:])


MENU: dict[str, Callable[[Chain, int], int]] = {}


def item(function: Callable[[Chain, int], int]) -> Callable[[Chain, int], int]:
    MENU[function.__name__] = function
    return function


def step(name: str, build: Callable[[int], tuple[Any, list[nn.Module], int]]) -> None:
    def add(chain: Chain, c: int) -> int:
        function, modules, out = build(c)
        chain.add(function, *modules)
        return out

    MENU[name] = add


def conv(i: int, o: int, k: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, groups=groups)


step("conv", lambda c: (lambda m, x: m[0](x), [conv(c, 8, 3)], 8))
step("wider", lambda c: (lambda m, x: m[0](x), [conv(c, 2 * c)], 2 * c))
step("norm", lambda c: (lambda m, x: F.relu(m[0](x)), [nn.BatchNorm2d(c)], c))
step("depthwise", lambda c: (lambda m, x: m[0](x), [conv(c, c, 3, c)], c))
step("grouped", lambda c: (lambda m, x: m[0](x), [conv(c, 2 * c, 3, 2)], 2 * c))
step("multiplier", lambda c: (lambda m, x: m[0](x), [conv(c, 2 * c, 3, c)], 2 * c))
step("residual", lambda c: (lambda m, x: x + m[1](F.relu(m[0](x))), [conv(c, 8, 3), conv(8, c)], c))
step("dense", lambda c: (lambda m, x: torch.cat([x, m[0](x)], 1), [conv(c, 4, 3)], c + 4))
step("branches", lambda c: (lambda m, x: torch.cat([m[0](x), m[1](x)], 1), [conv(c, 4), conv(c, 4, 3)], 8))
step("shuffle", lambda c: (lambda m, x: shuffle(x, 2), [], c))
step("cut in two", lambda c: (cut_in_two, [conv(c // 2, c // 2)], c))
step("gate", lambda c: (gate, [conv(c, 4), conv(4, c)], c))
step("tokens", lambda c: (tokens, [nn.Linear(c, 8), nn.Linear(8, c)], c))
step("attend", lambda c: (attend, [conv(c, 3 * c)], c))
step("halves", lambda c: (halves, [], c // 2))
step("glu", lambda c: (lambda m, x: F.glu(x, 1), [], c // 2))
step("flip", lambda c: (lambda m, x: x.flip(1), [], c))
step("twice", lambda c: (lambda m, x: torch.cat([x, -x], 1), [], 2 * c))
step("shared", lambda c: (lambda m, x: m[0](F.relu(m[0](x))), [conv(c, c)], c))
step("pad", lambda c: (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1)), [], c + 2))
step("unpixel", lambda c: (lambda m, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2), 2), [], c))
step("stack", lambda c: (lambda m, x: torch.stack([x, m[0](x)], 2).flatten(1, 2), [conv(c, c)], 2 * c))
step("group norm", lambda c: (lambda m, x: m[0](x), [nn.GroupNorm(2, c)], c))
step(
    "layer norm",
    lambda c: (lambda m, x: m[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), [nn.LayerNorm(c)], c),
)

RENORMALISE = {"group norm", "layer norm"}


def compose(seed: int, length: int = 8) -> tuple[Chain, list[str]]:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    chain, c, names = Chain(), 4, []
    chain.add(lambda m, x: m[0](x), conv(3, 8, 3))
    c = 8
    for _ in range(length):
        name = rng.choice(sorted(MENU))
        if c % 4 or c > 32:
            name = "conv"
        c = MENU[name](chain, c)
        names.append(name)
        if c < 4:
            c = MENU["conv"](chain, c)
    chain.add(lambda m, x: m[1](m[0](x).mean((2, 3))), conv(c, 8), nn.Linear(8, 3))
    return chain.eval(), names


@pytest.mark.parametrize("seed", range(16))
def test_a_random_composition_is_pruned_without_a_failed_proof(seed: int):
    model, names = compose(seed)
    example = torch.randn(4, 3, 4, 4)
    slim, plan = pj.prune(model, example, ratio=0.5, criterion="random", seed=seed)
    assert not plan.skipped, (names, plan.skipped)
    proof = pj.verify(model, slim, plan, example)
    assert proof.passed, (names, proof.cause)
    if not RENORMALISE.intersection(names):
        ours, theirs = outputs(slim, example), outputs(zeroed(model, plan), example)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
