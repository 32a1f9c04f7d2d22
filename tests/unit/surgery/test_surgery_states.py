"""The tensors a proof runs on: which are replaced because they show nothing, and whose memory they are in."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.surgery import _states
from penjing.surgery._precision import DOUBLE
from penjing.surgery._states import FAINT, visible_states

SIZE = 5000


def one(at: int) -> torch.Tensor:
    return torch.zeros(SIZE).index_fill_(0, torch.tensor([at]), 9.0)


def padded(rows: int) -> torch.Tensor:
    return torch.cat([torch.zeros(rows, 50), torch.randn(SIZE // 50 - rows, 50)])


SHOWING: dict[str, Callable[[], torch.Tensor]] = {
    "noise": lambda: torch.randn(SIZE),
    "a row of zeros first": lambda: padded(12),
    "zeros but for the end": lambda: padded(SIZE // 50 - 1),
    "one number of all": lambda: one(SIZE - 1),
    "rows that are each constant": lambda: torch.arange(50.0).repeat_interleave(SIZE // 50),
    "columns that are each constant": lambda: torch.arange(50.0).repeat(SIZE // 50),
    "channels last": lambda: torch.randn(5, 50, 4, 5).to(memory_format=torch.channels_last),
    "transposed": lambda: padded(12).t(),
    "far from zero": lambda: 1e4 + torch.randn(SIZE),
}
HIDING: dict[str, Callable[[], torch.Tensor]] = {
    "zeros": lambda: torch.zeros(SIZE),
    "ones": lambda: torch.ones(SIZE),
    "faint": lambda: FAINT / 10 * torch.randn(SIZE),
    "infinite": lambda: one(1).masked_fill_(one(1) > 0, float("-inf")),
    "infinite at the end": lambda: one(SIZE - 1).masked_fill_(one(SIZE - 1) > 0, float("-inf")),
}


def holding(tensor: torch.Tensor) -> nn.Module:
    net = nn.Module()
    net.table = nn.Parameter(tensor)
    return net


@pytest.mark.parametrize("block", [7, 1 << 16])
@pytest.mark.parametrize("kind", [*SHOWING, *HIDING])
def test_what_shows_its_indices_apart_stays(kind: str, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_states, "BLOCK", block)
    torch.manual_seed(0)
    net = holding((SHOWING | HIDING)[kind]())
    states, hidden = visible_states(net, DOUBLE, dict(net.state_dict()))
    assert (kind in HIDING) == ("table" in hidden)
    assert (states["table"].data_ptr() == net.table.data_ptr()) == (kind in SHOWING)


def test_random_numbers_in_the_place_of_what_shows_nothing():
    net = nn.Sequential(nn.BatchNorm1d(300), nn.Linear(300, 2, bias=False)).double()
    nn.init.zeros_(net[1].weight)
    states, hidden = visible_states(net, DOUBLE, dict(net.state_dict()))
    assert hidden == {"0.weight", "0.bias", "0.running_mean", "0.running_var", "1.weight"}
    assert all(states[name].dtype is torch.float64 for name in hidden)
    for name in ("0.weight", "0.running_var"):
        assert states[name].min() >= 0.4
        assert states[name].max() <= 1.6
        assert 0.1 < states[name].std() < 0.3
    assert states["0.bias"].mean().abs() < 0.05
    assert not torch.equal(states["0.bias"], states["0.running_mean"])
    assert 0.03 < states["1.weight"].std() * 300**0.5 < 3


class Stumbles(nn.Module):
    """Its forward notes what it saw, and fails in the middle wherever numbers are float64."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 3)
        self.norm, self.spare = nn.RMSNorm(8), [nn.Linear(2, 2)]
        self.fails, self.seen = fails, {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(torch.relu(self.one(x)))
        if self.fails and x.dtype is torch.float64 and not x.is_meta:
            self.seen["last"] = x
            raise ValueError("in the middle")
        return self.two(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_a_proof_leaves_the_smaller_network_as_it_is(fails: bool, training: bool):
    torch.manual_seed(0)
    net, example = Stumbles(False), torch.randn(2, 6)
    slim, plan = pj.prune(net, example, ratio=0.5)
    slim.train(training)
    slim.fails = fails
    before, twin = {n: (id(p), p._version) for n, p in slim.named_parameters()}, deepcopy(slim)
    if fails:
        with pytest.raises(ValueError, match="in the middle"):
            pj.verify(net, slim, plan, example)
    else:
        assert pj.verify(net, slim, plan, example).passed
    assert before == {n: (id(p), p._version) for n, p in slim.named_parameters()}
    assert all(
        torch.equal(a, b) and a.dtype is b.dtype
        for a, b in zip(slim.parameters(), twin.parameters(), strict=True)
    )
    assert slim.spare[0].weight.dtype is torch.float32
    assert (slim.seen, slim.norm.eps, slim.training, slim.two.training) == ({}, None, training, training)


def test_what_nobody_reads_is_left_out_unless_it_is_absent():
    net = holding(torch.zeros(SIZE))
    assert visible_states(net, DOUBLE, ()) == ({}, frozenset())
    states, hidden = visible_states(net.to("meta"), DOUBLE, ())
    assert hidden == {"table"}
    assert states["table"].device.type == "cpu"
