"""Plans come from anybody: whatever stands in their adjustments, they apply or are refused, and ask for little."""

import tracemalloc
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core._edits import AdjustComponent
from penjing.surgery._adjusting import Adjustable
from penjing.surgery._adjustments import ADJUSTMENTS
from penjing.surgery._adjustments._registry import change

GIANT = 10**9
ODD: tuple[Any, ...] = (GIANT, -GIANT, 0, -1, 1.5, True, "x", (), (GIANT,), (GIANT, GIANT), (0, 0), (1, 2, 3))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU()
        self.more = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.more(self.act(self.norm(self.conv(x))))


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.stay = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        return self.stay(tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0])


class Everything(nn.Module):
    """A network that has something for every kind of adjustment."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.blocks = nn.Sequential(Block(), nn.Conv2d(16, 16, 3, padding=1), Block())
        self.attends, self.pool = Attends(), nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.stem(x))
        y = y + self.attends(y).transpose(1, 2).reshape(y.shape)
        return self.head(self.pool(y).flatten(1))


X = torch.randn(2, 3, 34, 34)


@cache
def network() -> nn.Module:
    torch.manual_seed(0)
    return Everything().eval()


@cache
def listed() -> tuple[Adjustable, ...]:
    return pj.adjustments(network(), X)


def one_of(kind: str) -> AdjustComponent:
    return next(one.edit for one in listed() if one.kind == kind and one.edit is not None)


def tried(edit: AdjustComponent) -> bool:
    """Whether a copy of the network can be changed so; anything but a plan's error fails the test."""
    try:
        change(Everything().eval(), edit)
    except pj.PlanError:
        return False
    return True


def test_there_is_an_example_of_every_kind() -> None:
    assert {one.kind for one in listed() if one.edit is not None} == set(ADJUSTMENTS)


@pytest.mark.parametrize("kind", sorted(ADJUSTMENTS))
def test_odd_options_are_refused_or_harmless(kind: str) -> None:
    edit = one_of(kind)
    assert tried(edit)
    options = dict(edit.options)
    tracemalloc.start()
    for name in options:
        without = {key: value for key, value in options.items() if key != name}
        tried(replace(edit, options=tuple(sorted(without.items()))))
        for odd in ODD:
            other = tuple(sorted({**options, name: odd}.items()))
            fine = tried(replace(edit, options=other))
            assert not (fine and odd in (GIANT, -GIANT, (GIANT,), (GIANT, GIANT)))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


@pytest.mark.parametrize("kind", sorted(ADJUSTMENTS))
def test_other_numbers_of_modules_are_refused(kind: str) -> None:
    edit = one_of(kind)
    many = tuple(path for path, _ in network().named_modules() if path)
    more = tuple(path for path in many if path not in edit.modules)[:9]
    for modules in (edit.modules[:-1], (*edit.modules, *more)):
        if modules:
            assert not tried(replace(edit, modules=modules))


@pytest.mark.parametrize(
    ("kind", "option", "value", "says"),
    [
        ("resolution", "of", "frets", "neither pixels nor frames"),
        ("resolution", "dim", 7, "neither pixels nor frames"),
        ("fold_norm", "eps", float("nan"), "eps"),
        ("bridge", "in", 60_000, "out of proportion"),
        ("mix", "in", 60_000, "out of proportion"),
        ("pool", "kernel", (4000, 4000), "out of proportion"),
    ],
)
def test_options_are_refused_in_words(kind: str, option: str, value: Any, says: str) -> None:
    edits = [one.edit for one in listed() if one.kind == kind and one.edit is not None]
    edit = next(e for e in edits if kind != "pool" or ("to", "conv") in e.options)
    options = {**dict(edit.options), option: value, **({"out": 65_000} if option == "in" else {})}
    with pytest.raises(pj.PlanError, match=says):
        pj.adjust(network(), X, [replace(edit, options=tuple(sorted(options.items())))])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


def test_whatever_is_listed_for_an_encoder_applies() -> None:
    model, x = Encoder().eval(), torch.randn(2, 6, 16)
    every = pj.adjustments(model, x)
    edits = [one for one in every if one.edit is not None]
    assert edits
    assert all(one.why for one in every if one.edit is None)
    for one in edits:
        slim, _ = pj.adjust(model, x, [one.edit])  # type: ignore[list-item]
        assert slim(x).shape == (2, 4)


class Asking(nn.Module):
    """Its code reads what its layers hold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.more, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.first.gain = 2.0  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x) * self.first.gain
        return self.out((y + self.more(y) * self.more.weight.dim()).mean((2, 3)))


def test_wrappers_answer_for_what_they_wrap_and_others_have_their_reason() -> None:
    model, x = Asking().eval(), torch.randn(2, 3, 32, 32)
    every = pj.adjustments(model, x)
    fewer = next(one for one in every if one.kind == "resolution" and one.edit is not None)
    slim, _ = pj.adjust(model, x, [fewer.edit])  # type: ignore[list-item]
    assert slim(x).shape == (2, 4)
    assert slim.get_submodule("first").gain == 2.0
    with pytest.raises(AttributeError, match="nothing"):
        _ = slim.get_submodule("first").nothing
    assert any("has no attribute 'weight'" in one.why for one in every if one.module == "more")


def test_new_weights_are_of_the_networks_type() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3)).bfloat16().eval()
    x = torch.randn(2, 3, 16, 16).bfloat16()
    edits = [one.edit for one in pj.adjustments(model, x) if one.kind == "pool" and one.edit is not None]
    assert {dict(edit.options)["to"] for edit in edits} == {"avg", "conv"}
    for edit in edits:
        slim, _ = pj.adjust(model, x, [edit])
        assert slim(x).dtype is torch.bfloat16
