"""Signals die out on their way through deep networks: an error in an early layer shows in its product all the same."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.surgery import _apply, _cut, check
from penjing.surgery._differences import products_differ
from penjing.surgery._precision import DOUBLE
from penjing.surgery._revival import Told, measure

LAYERS = 12


class Fading(nn.Module):
    """Each layer passes on a hundredth of what it gets, beside a bias: the outputs hardly know the input."""

    def __init__(self, attend: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(LAYERS))
        self.attend = attend
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, 0, 0.002)
            nn.init.normal_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = F.gelu(layer(x))
        if self.attend:
            x = F.scaled_dot_product_attention(x, x, x)
        return x


EXAMPLE = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))


def spoil(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Cut one wrong row of a tensor, in the place of the last that should go."""
    right: Callable[..., torch.Tensor] = _apply.slice_tensor

    def wrong(
        tensor: torch.Tensor, dims: dict[int, tuple[int, ...]], called: str, **options: object
    ) -> torch.Tensor:
        if called == name:
            kept = next(i for i in range(tensor.shape[0]) if i not in dims[0])
            dims = {**dims, 0: tuple(sorted((*dims[0][:-1], kept)))}
        return right(tensor, dims, called, **options)

    monkeypatch.setattr(_apply, "slice_tensor", wrong)


@pytest.mark.parametrize("attend", [False, True])
@pytest.mark.parametrize("layer", [0, 1, LAYERS - 2])
def test_an_early_error_shows(attend: bool, layer: int, monkeypatch: pytest.MonkeyPatch):
    model = Fading(attend).eval()
    structure = pj.trace(model, EXAMPLE)
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    assert pj.verify(model, slim, plan, EXAMPLE).passed
    spoil(monkeypatch, f"layers.{layer}.weight")
    made = _cut.cut(model, structure, plan, EXAMPLE)
    with torch.no_grad():
        worst = (made.slim.double()(EXAMPLE.double()) - slim.double()(EXAMPLE.double())).abs().max().item()
    made.slim.float()
    if layer < 2 and not attend:
        assert worst < 1e-9  # the outputs do not tell
    found = check(model, made.slim, structure, made.plan, EXAMPLE, retraced=made.traces)
    assert not found.passed
    assert "differ" in found.cause


def test_other_products_are_not_compared():
    one, two, less = Told(), Told(), Told()
    x = torch.ones(2, 2, dtype=torch.float64)
    for told, packets in (
        (one, [torch.ops.aten.mm, torch.ops.aten.bmm]),
        (two, [torch.ops.aten.mm, torch.ops.aten.mm]),
        (less, [torch.ops.aten.mm, torch.ops.aten.relu]),
    ):
        for packet in packets:
            told.hear(packet, x)
    assert products_differ(one, one, DOUBLE) == 0
    assert products_differ(one, two, DOUBLE) is None
    assert products_differ(one, less, DOUBLE) is None


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_small_products_must_agree_relatively(scale: float):
    ours, theirs = Told(), Told()
    x = scale * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours.hear(torch.ops.aten.mm, x)
    theirs.hear(torch.ops.aten.mm, x * (1 + 1e-6))
    assert (products_differ(ours, theirs, DOUBLE) or 0) > DOUBLE.tolerance


def test_a_measure_tells_places_apart():
    x = torch.randn(3, 5000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for other in (x.roll(1, 1), x.roll(4093, 1), x.flip(0), x.flatten().roll(4093).view_as(x)):
        assert abs(measure(x)[0] - measure(other)[0]) > 1e-3
    assert measure(x)[1] == x.abs().max().item()
    assert measure(torch.tensor([1.0, float("inf"), -2.0])) == measure(torch.tensor([1.0, 0.0, -2.0]))
    assert measure(torch.zeros(0)) == (0.0, 0.0)
