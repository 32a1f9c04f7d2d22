"""Which methods are tried on which networks."""

from typing import Any

import torch
from torch import nn

from penjing.core import Recipe
from penjing.pipeline._candidates import candidates
from penjing.search import stream_names
from penjing.structure import trace


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.last, self.out = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.out(self.last(self.norm(self.first(x)).relu()))


def network(blocks: int, width: int = 16) -> nn.Sequential:
    stem = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)
    return nn.Sequential(*stem, *(Block(width) for _ in range(blocks)), *ends)


def names(model: nn.Module, steps: dict[str, Any] | None = None) -> list[str]:
    values = {"task": "image-classification", "model": "timm:resnet18", "data": "builtin:digits"}
    recipe = Recipe.of({**values, "budget": "macs<=0.5x", "steps": steps or {}})
    return [one.name for one in candidates(recipe, trace(model, torch.randn(2, 3, 8, 8)))]


def test_the_stream_is_what_runs_through_blocks_and_around_them() -> None:
    structure = trace(network(2), torch.randn(2, 3, 8, 8))
    assert stream_names(structure) == ("1.weight",)


def test_the_rule_comes_first_and_what_the_network_has_is_tried() -> None:
    assert names(network(8)) == [
        "obs",
        "taylor",
        "obs-stream-whole",
        "obs-drop-1",
        "taylor-stream-whole",
        "obs-drop-2",
        "obs-round-1",
        "taylor-uniform-stream-whole",
        "l2-uniform-stream-whole",
        "l2-global",
    ]


def test_a_network_without_shortcuts_keeps_its_depth_and_wide_layers_their_steps() -> None:
    plain = nn.Sequential(
        nn.Conv2d(3, 128, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4)
    )
    assert names(plain) == ["obs", "taylor", "taylor-uniform", "l2-uniform", "l2-global"]


def test_what_is_written_is_not_varied() -> None:
    steps = {"choose": {"on": True}, "prune": {"criterion": "fisher", "round_to": 4}, "trim": {"blocks": 1}}
    assert names(network(8), steps) == ["fisher-drop-1-round-4", "fisher-stream-whole-drop-1-round-4"]
    assert names(
        network(8), {"prune": {"scope": "loss", "granularity": ["channel"]}, "choose": {"candidates": 3}}
    ) == [
        "obs-loss",
        "taylor-loss",
        "obs-loss-drop-1",
    ]


def test_cuts_after_adjustments_stand_among_the_others_best_guess_first() -> None:
    values = {"task": "image-classification", "model": "timm:resnet18", "data": "builtin:digits"}
    recipe = Recipe.of({**values, "budget": "macs<=0.5x"})
    found = candidates(recipe, trace(network(8), torch.randn(2, 3, 8, 8)), (3, 1, 5))
    assert [one.name for one in found][:7] == [
        "obs", "obs-adjust-3", "taylor", "obs-stream-whole", "obs-adjust-1", "obs-drop-1", "obs-adjust-5",
    ]  # fmt: skip
    assert found[
        1
    ].about == "units by obs, ranked by the loss they cost, 3 components adjusted first".replace(
        "units by obs, ranked by the loss they cost", found[0].about
    )
    assert found[1].options()["adjust"] == {"edits": 3}
