"""The reference's contractions against torch's own, with removed indices masked."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from penjing.core._graph import OpCall, Ref
from penjing.surgery import _contractions
from penjing.surgery._contractions import Selection, by_definition, contracted
from penjing.surgery._precision import DOUBLE

aten = torch.ops.aten


def made(op: Any, count: int) -> OpCall:
    refs = tuple(Ref(i) for i in range(count))
    return OpCall(op=op, args=refs, kwargs={}, inputs=(), outputs=(0,), module="", function="")


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("block", [16, 1 << 17])
@pytest.mark.parametrize("large", [0, 1 << 23])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("cut", ["rows", "columns", "both"])
def test_large_products_are_those_of_kept_indices(
    block: int, large: int, transposed: bool, cut: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_contractions, "BLOCK", block)
    monkeypatch.setattr(_contractions, "LARGE", large)
    x, bias = random(3, 10).double(), random(7)
    weight = random(7, 10).t() if transposed else random(10, 7)
    rows, columns = torch.tensor([0, 3, 4, 8, 9]), torch.tensor([1, 2, 6])
    inside = ((1, 1, rows), (2, 0, rows)) if cut != "columns" else ()
    out = ((2, 1, columns),) if cut != "rows" else ()
    outputs = ((1, columns, 7),) if cut != "rows" else ()
    selection = Selection(inputs=inside + out, outputs=outputs, addend=2)
    masked = torch.zeros(10).index_fill(0, rows, 1) if cut != "columns" else torch.ones(10)
    expected = bias.double() + (x * masked) @ weight.double()
    found = contracted(made(aten.addmm.default, 3), [bias, x, weight], {}, selection, DOUBLE)
    kept = columns if cut != "rows" else torch.arange(7)
    assert (found - expected)[:, kept].abs().max() < 1e-12
    if cut != "rows":
        assert (found - expected)[:, [0, 3, 4, 5]].abs().min() > 1e-6, (
            "removed columns hold arbitrary numbers"
        )


def test_what_nobody_may_read_stays_apart_from_results():
    kept = torch.tensor([1, 2])
    selection = Selection(inputs=((1, 1, kept),), outputs=((1, kept, 4),), addend=0)
    ones, twos = (torch.full((1, 1), n, dtype=torch.float64) for n in (1.0, 2.0))
    first = contracted(made(aten.mm.default, 2), [ones, random(1, 4)], {}, selection, DOUBLE)
    again = contracted(made(aten.mm.default, 2), [twos, random(1, 4)], {}, selection, DOUBLE)
    assert torch.equal(again[:, kept], 2 * first[:, kept])
    assert torch.equal(again[:, [0, 3]], first[:, [0, 3]])


@pytest.mark.parametrize("block", [16, 1 << 17])
def test_large_kernels_are_cut_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_contractions, "BLOCK", block)
    x, weight = random(2, 6, 5, 5).double(), random(8, 6, 3, 3)
    rest = [None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1]
    inner, outer = torch.tensor([0, 2, 5]), torch.tensor([1, 6, 7])
    selection = Selection(
        inputs=((0, 1, inner), (1, 0, outer), (1, 1, inner)), outputs=((1, outer, 8),), addend=0
    )
    found = contracted(made(aten.convolution.default, 2), [x, weight, *rest], {}, selection, DOUBLE)
    expected = F.conv2d(x[:, inner], weight.double()[outer][:, inner], padding=1)
    assert torch.equal(found[:, outer], expected)


@pytest.mark.parametrize(
    ("shape", "kernel", "options"),
    [
        ((2, 30, 9, 8), (3, 5), {"stride": (1, 2), "padding": (1, 2)}),
        ((1, 30, 11, 11), (3, 3), {"stride": (2, 2), "padding": (2, 2), "dilation": (2, 2)}),
        ((2, 30, 17), (7,), {"stride": (3,), "padding": (0,)}),
        ((1, 30, 4, 5, 6), (1, 3, 2), {"padding": (0, 1, 1)}),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_depthwise_convolutions_tap_by_tap(
    shape: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], biased: bool
):
    rank = len(kernel)
    x, weight = random(*shape).double(), random(30, 1, *kernel).double()
    bias = random(30).double() if biased else None
    places = [list(options.get(k, (d,) * rank)) for k, d in (("stride", 1), ("padding", 0), ("dilation", 1))]
    args = [x, weight, bias, *places, False, [0] * rank, 30]
    found = by_definition(aten.convolution.default, args, {})
    assert (found - aten.convolution.default(*args)).abs().max() < 1e-12
