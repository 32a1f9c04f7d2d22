"""What is taken for the bias, the batch norm and the stream of a product, and what is not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.structure import Parameters, survey

Wired = Callable[["Net", Tensor, Tensor], Any]


class Net(nn.Module):
    """A stream x of [6, 4, 4] and a product y added to it, in some way."""

    def __init__(self, run: Wired) -> None:
        super().__init__()
        self.run, self.first = run, nn.Linear(4, 4)
        self.weight, self.bias = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
        self.norm, self.wide = nn.BatchNorm1d(4), nn.BatchNorm1d(16)

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        return self.run(self, x, torch.tanh(x) @ self.weight)


@dataclass(frozen=True)
class Case:
    name: str
    run: Wired
    found: str = ""


def over_channels(net: Net, y: Tensor) -> Tensor:
    return net.norm(y.transpose(1, 2)).transpose(1, 2)


def read_twice(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return (x + y) * y


def read_twice_before(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return y.exp() + (x + y)


def norm_and_raw(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return over_channels(net, y) + (x + y)


def changed_stream(net: Net, x: Tensor, y: Tensor) -> Tensor:
    x.mul_(2)
    return x + y


def returned_too(net: Net, x: Tensor, y: Tensor) -> Any:
    return {"sum": x + y, "own": [y]}


def changed_part(net: Net, x: Tensor, y: Tensor) -> Tensor:
    y[:, :1].zero_()
    return x + y


def part_of_stream_made(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return x[:3].repeat(2, 1, 1) + y


CASES = [
    Case("plain", lambda net, x, y: x + y, "partner"),
    Case("the other way", lambda net, x, y: y + x, "partner"),
    Case("in place on the stream", lambda net, x, y: x.add_(y), "partner"),
    Case("in place on the product", lambda net, x, y: y.add_(x), "partner"),
    Case("flattened", lambda net, x, y: x.flatten(1) + y.flatten(1), "partner"),
    Case("both turned", lambda net, x, y: x.mT + y.mT, "partner"),
    Case("the stream turned", lambda net, x, y: x.mT + y),
    Case("the product turned", lambda net, x, y: x + y.mT),
    Case("alpha", lambda net, x, y: torch.add(x, y, alpha=2)),
    Case("alpha in place", lambda net, x, y: x.add_(y, alpha=2)),
    Case("subtracted", lambda net, x, y: x - y),
    Case("a part of the product", lambda net, x, y: x[:, :2] + y[:, :2]),
    Case("an expanded part", lambda net, x, y: x + y[:1].expand(6, -1, -1)),
    Case("one row", lambda net, x, y: x[:1] + y[:1]),
    Case("parts of the product", lambda net, x, y: y.chunk(2, 1)[0] + y.chunk(2, 1)[1]),
    Case("relu in between", lambda net, x, y: x + y.relu()),
    Case("relu in place in between", lambda net, x, y: x + y.relu_()),
    Case("relu in place after", lambda net, x, y: (x + y).relu_(), "partner"),
    Case("the stream changed in between", changed_stream),
    Case("a part changed in between", changed_part),
    Case("another stream", part_of_stream_made),
    Case("read once more", read_twice),
    Case("read once more before", read_twice_before),
    Case("returned too", returned_too),
    Case("a bias, returned too", lambda net, x, y: (y.add_(net.bias), x + y), "bias"),
    Case("a bias", lambda net, x, y: y + net.bias, "bias"),
    Case("a bias in place, a stream", lambda net, x, y: x + y.add_(net.bias), "bias partner"),
    Case("a bias over positions", lambda net, x, y: y.mT + net.bias),
    Case("a bias for a part", lambda net, x, y: y[:3] + net.bias),
    Case("a bias with a factor", lambda net, x, y: torch.add(y, net.bias, alpha=0.5)),
    Case("a norm over channels", lambda net, x, y: over_channels(net, y), "norm"),
    Case("bias, norm", lambda net, x, y: over_channels(net, y + net.bias), "bias norm"),
    Case("rows with a norm", lambda net, x, y: x.flatten(0, 1) + net.norm(y.flatten(0, 1)), "norm partner"),
    Case("a norm over positions", lambda net, x, y: net.norm(y)),
    Case("a norm over both", lambda net, x, y: net.wide(y.flatten(1))),
    Case("a norm after the stream", lambda net, x, y: over_channels(net, y.add_(x)), "partner"),
    Case("a norm and the product itself", norm_and_raw),
    Case("a norm in place of a stream", lambda net, x, y: over_channels(net, y.relu_())),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("size", [1, 6])
def test_what_follows_a_product(case: Case, size: int) -> None:
    torch.manual_seed(0)
    net, data = Net(case.run).double().eval(), torch.randn(size, 4, 4, dtype=torch.float64)
    if size == 1 and case.name in ("another stream", "an expanded part", "one row", "a bias for a part"):
        data = data.expand(6, -1, -1).clone()
    meeting = survey(lambda: net(data), Parameters(net)).once["weight"]
    found = [kind for kind in ("bias", "norm", "partner") if getattr(meeting, kind) is not None]
    assert " ".join(found) == case.found
