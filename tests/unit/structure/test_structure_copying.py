"""Copies of networks are what `copy.deepcopy` makes, whatever modules hold and however they ask to be copied."""

import copy
import threading
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.structure import copied


class Own(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Own":
        made = memo[id(self)] = Own(self.in_features, self.out_features)
        made.load_state_dict(self.state_dict())
        made.origin = "own"
        return made


class Forgets(nn.Linear):
    """Leaves something out of its state, and makes it anew."""

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in super().__getstate__().items() if k != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.lock = ["new"]


class Wakes(nn.Linear):
    """Computes something when its state is set."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.woken = self.weight.shape


class Slotted(nn.Linear):
    __slots__ = ("beside",)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = Own(3, 3), Forgets(3, 3), Wakes(3, 3)
        self.slotted = Slotted(3, 3)
        self.again, self.two.lock = self.one, ["old"]
        self.loose = [self.three, {"deep": (self.two, 1)}]
        self.shared = self.loose
        self.ordered = OrderedDict(a=[1])
        self.ordered.note = "kept"  # type: ignore[attr-defined]
        self.kinds, self.numbers, self.empty = {nn.Linear, 3}, (1, 2), {}
        self.by_module = {self.three: self.three.bias}
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.three.weight
        self.fun = lambda: self.tied.weight


def test_a_copy_is_what_deepcopy_makes():
    model = Net()
    made, twin = copied(model, {}), copy.deepcopy(model)
    assert list(made.__dict__) == list(twin.__dict__)
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), twin.parameters(), strict=True))
    assert made.one.origin == "own"
    assert made.again is made.one
    assert made.two.lock == ["new"]
    assert made.three.woken == (3, 3)
    assert not hasattr(made.slotted, "beside")
    assert made.shared is made.loose
    assert made.loose[0] is made.three
    assert made.loose[1]["deep"] == (made.two, 1)
    assert (made.ordered, made.ordered.note) == (model.ordered, "kept")  # type: ignore[attr-defined]
    assert made.ordered["a"] is not model.ordered["a"]
    assert made.kinds == model.kinds
    assert made.kinds is not model.kinds
    assert made.empty is not model.empty
    assert made.by_module[made.three] is made.three.bias
    assert made.tied.weight is made.three.weight


def test_nothing_of_a_copy_is_the_original():
    model = Net()
    made = copied(model, {})
    ours = {id(t) for t in made.parameters()} | {id(m) for m in made.modules()}
    assert ours.isdisjoint({id(t) for t in model.parameters()} | {id(m) for m in model.modules()})
    assert made.fun() is made.tied.weight


def test_a_network_that_cannot_be_copied_says_so():
    model = nn.Sequential(nn.Linear(2, 2))
    model.kept = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(pj.PlanError, match="cannot be copied"):
        copied(model, {})


class Aliases(nn.Module):
    """Tensors that share memory in whole and in part, and one that somebody marked."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("whole", torch.arange(12.0).view(3, 4))
        self.register_buffer("again", self.whole.view(4, 3))
        self.register_buffer("part", torch.arange(6.0))
        self.rows = self.part[:2]
        self.register_buffer("last", torch.randn(1, 2, 3, 4).to(memory_format=torch.channels_last))
        self.weight = nn.Parameter(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last))
        self.weight.no_decay = True  # type: ignore[attr-defined]
        self.still = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.meta = torch.empty(2, device="meta")


def test_tensors_that_share_memory_share_it_in_the_copy_too():
    model = Aliases()
    made, twin = copied(model, {}), copy.deepcopy(model)
    for own in (made, twin):
        own.whole[0, 0] = 100.0
        own.part[1] = 100.0
    for name in ("whole", "again", "part", "rows", "last", "weight", "still"):
        ours, theirs = getattr(made, name), getattr(twin, name)
        assert type(ours) is type(theirs)
        assert torch.equal(ours, theirs)
        assert (ours.stride(), ours.requires_grad) == (theirs.stride(), theirs.requires_grad)
        assert ours.data_ptr() != getattr(model, name).data_ptr()
    assert made.again[0, 0] == made.rows[1] == 100.0
    assert model.whole[0, 0] == 0.0
    assert made.weight.no_decay
    assert made.meta.is_meta
