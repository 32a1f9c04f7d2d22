"""Two sizes of one value are told apart by their place, and integers that are no sizes stay what they are."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

SQUARE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Body(nn.Module):
    def __init__(self, between: Any, **attributes: Any) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.between = between
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(self, self.a(x)))


EIGHT_OF_EVERYTHING = {
    "zeros": (lambda m, y: y + torch.zeros(2, m.width, 8, 8), {"width": 8}),
    "new zeros": (lambda m, y: y + y.new_zeros(len(y), m.width, m.side, m.side), {"width": 8, "side": 8}),
    "layer norm": (lambda m, y: m.norm(y), {"norm": nn.LayerNorm((8, 8, 8))}),
    "repeat": (lambda m, y: y * torch.full((1, 1, 1), 0.5).repeat(m.width, 8, 8), {"width": 8}),
    "circular padding": (lambda m, y: F.pad(y, (1, 1, 1, 1), mode="circular"), {}),
    "half": (lambda m, y: torch.cat([y[:, : y.shape[1] // 2].relu(), y[:, y.shape[1] // 2 :]], 1), {}),
}


@pytest.mark.parametrize("name", EIGHT_OF_EVERYTHING)
def test_channels_shrink_where_pixels_are_as_many(name: str):
    between, attributes = EIGHT_OF_EVERYTHING[name]
    torch.manual_seed(0)
    model = Body(between, **attributes).eval()
    slim, plan = pj.prune(model, SQUARE, ratio=0.5)
    assert not plan.skipped
    assert slim.a.out_channels == 4
    assert pj.verify(model, slim, plan, SQUARE).passed
    if "width" in attributes:
        assert slim.width == 4


STAYS = {
    "numbered": (lambda m, y: y * torch.arange(y.shape[1])[:, None, None], "arange numbers the indices"),
    "computed number": (
        lambda m, y: y * torch.arange(y.shape[1] // 2).repeat(2)[:, None, None],
        "arange numbers the indices",
    ),
    "padded to a count": (
        lambda m, y: F.pad(y, (0, 0, 0, 0, 0, 10 - y.shape[1]))[:, : y.shape[1]],
        "pads by this amount",
    ),
    "spectrum": (lambda m, y: torch.fft.fft(y, dim=1).real, "transforms this dim"),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_depends_on_the_number_of_channels_stays_with_its_cause(name: str):
    between, cause = STAYS[name]
    torch.manual_seed(0)
    model = Body(between).eval()
    structure = pj.trace(model, SQUARE)
    assert not structure.groups
    assert any(cause in f.cause for f in structure.frozen if f.parameter == "a.weight" and f.dim == 0)
