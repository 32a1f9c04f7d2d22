"""Calls written down again are the calls that torch makes: every trace is the same as one that runs each function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penjing.structure import Trace, trace_forward
from penjing.structure._tracing import _user_calls


class Calls(nn.Module):
    """A network whose forward is a function of itself and its input."""

    def __init__(self, run: Callable[["Calls", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.run = run
        self.linear, self.bare = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(n, n, 3, padding=1) for n in (6, 8))
        self.narrow, self.norm, self.wide_norm = nn.Conv2d(6, 8, 1), nn.BatchNorm2d(6), nn.BatchNorm2d(8)
        self.heads = 2
        self.grouped = nn.ModuleList(nn.GroupNorm(2, 6) for _ in range(3))
        self.clipped = nn.ModuleList(nn.Hardtanh(0, 6) for _ in range(3))  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(self, x)


def alike_sizes(net: Calls, x: torch.Tensor) -> torch.Tensor:
    x = F.relu(net.norm(net.convolutions[0](x)))
    x = F.relu(net.wide_norm(net.convolutions[1](net.narrow(x))), inplace=True)
    return F.gelu(x[..., ::2]) * F.gelu(x.mean((2, 3), keepdim=True))


def attention(net: Calls, x: torch.Tensor) -> torch.Tensor:
    x = x.flatten(2).transpose(1, 2)[..., :6]
    for _ in range(3):
        q = net.linear(x).view(x.shape[0], -1, net.heads, 3).transpose(1, 2)
        k, v = net.bare(x).reshape(2, -1, net.heads, 3).permute(0, 2, 1, 3), q.unsqueeze(0).squeeze(0)
        x = x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
    return x


def numbers(net: Calls, x: torch.Tensor) -> torch.Tensor:
    several: list[Any] = [1, 1.0, 2, True]
    return sum((x * n).add(n) for n in several)  # type: ignore[return-value]


def same_tensor(net: Calls, x: torch.Tensor) -> torch.Tensor:
    y = x.relu()
    return x * y + x * x + y * y + y * x


def in_place(net: Calls, x: torch.Tensor) -> torch.Tensor:
    for _ in range(3):
        y = x.clone()
        y.add_(x).relu_()
        x = x + y.mul_(2)
    return x


def cuts(net: Calls, x: torch.Tensor) -> torch.Tensor:
    for _ in range(2):
        a, b = x.chunk(2, dim=1)
        c, *rest = x.unbind(1)
        x = torch.cat([b, a], 1) + c[:, None] + rest[-1].unsqueeze(1)[:, :, [0]] + x[:, 0:1, None, 0]
    return x


def autocast(net: Calls, x: torch.Tensor) -> torch.Tensor:
    first = net.linear(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        second = net.linear(x)
    return first + second.float() + net.linear(x)


def other_data(net: Calls, x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    before = torch.relu(y).sum()
    y.data = x[:, :2]
    return torch.relu(y) * before


def masked(net: Calls, x: torch.Tensor) -> torch.Tensor:
    where = x > 0
    return x[where].sum() + x[where].sum() + F.dropout(x, 0.1, training=net.training).sum()


def real_tensors(net: Calls, x: torch.Tensor) -> torch.Tensor:
    mask, count = torch.tensor([True, False] * 3), torch.arange(6)
    for _ in range(3):
        count.add_(1)
        y = x.transpose(2, 3)
        x = F.scaled_dot_product_attention(y, y, y, mask).transpose(2, 3) * count
    return x[..., : int(count[0])] + int(count.add(2).add(2)[0])


def comparing(net: Calls, x: torch.Tensor) -> torch.Tensor:
    for norm, clip in zip(net.grouped, net.clipped, strict=True):
        x = clip(norm(x))
    return x


def inference(net: Calls, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        first = net.linear(x)
    return net.linear(x) + first


def conjugated(net: Calls, x: torch.Tensor) -> torch.Tensor:
    y = torch.view_as_complex(x.reshape(2, 6, 4, 3, 2))
    both = y * 2 + y.conj() * 2 + y.clone() + y.conj().clone()
    return torch.view_as_real(both).sum() + (y.imag * 2).sum() + (y.conj().imag * 2).sum()


CASES = (
    inference,
    conjugated,
    comparing,
    alike_sizes,
    attention,
    numbers,
    same_tensor,
    in_place,
    cuts,
    autocast,
    other_data,
    masked,
    real_tensors,
)


def listed(trace: Trace) -> list[str]:
    graph = trace.graph
    return [*map(repr, graph.calls), *map(repr, graph.values), repr(graph.modules), repr(trace.compared)]


@pytest.mark.parametrize("provenance", [True, False])
@pytest.mark.parametrize("run", CASES, ids=lambda f: f.__name__)
def test_a_trace_is_the_one_that_runs_every_function(
    run: Callable[..., torch.Tensor], provenance: bool, monkeypatch: pytest.MonkeyPatch
):
    network, example = Calls(run).eval(), torch.randn(2, 6, 4, 6)
    found = trace_forward(network, example, provenance=provenance)
    monkeypatch.setattr(_user_calls, "REPEATED", frozenset())
    assert listed(found) == listed(trace_forward(network, example, provenance=provenance))


@dataclass(frozen=True)
class Function:
    name: str
    run: Callable[[torch.Tensor], Any]


VIEWS = (
    Function("view", lambda x: x.view(2, -1)),
    Function("chunk", lambda x: x.chunk(2, 1)),
    Function("slice", lambda x: x[:, 1:3]),
)


@pytest.mark.parametrize("case", VIEWS, ids=lambda c: c.name)
def test_a_view_written_down_again_is_a_view(case: Function):
    shared = []

    def run(net: Calls, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            found = case.run(x)
            views = [found] if isinstance(found, torch.Tensor) else found
            shared.extend(t.untyped_storage()._cdata == x.untyped_storage()._cdata for t in views)
        return x * 2

    trace_forward(Calls(run).eval(), torch.randn(2, 6, 4, 6))
    assert shared
    assert all(shared)


def test_results_written_down_again_share_no_memory():
    found: list[torch.Tensor] = []

    def run(net: Calls, x: torch.Tensor) -> torch.Tensor:
        found.extend(net.linear(x) for _ in range(3))
        return found[-1]

    trace_forward(Calls(run).eval(), torch.randn(2, 6))
    assert len({t.untyped_storage()._cdata for t in found}) == 3
