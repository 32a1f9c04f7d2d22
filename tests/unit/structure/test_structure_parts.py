"""Cuts through a group: a computed part of a stream, or a literal one."""

import torch
from torch import nn

import penjing as pj


class Shift(nn.Module):
    """A temporal shift: one eighth of the channels comes from the next frame, one from the last."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.into, self.inner, self.out = nn.Conv1d(3, width, 1), nn.Conv1d(width, 8, 1), nn.Conv1d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        fold = y.shape[1] // 8
        shifted = torch.zeros_like(y)
        shifted[:, :fold, :-1] = y[:, :fold, 1:]
        shifted[:, fold : 2 * fold, 1:] = y[:, fold : 2 * fold, :-1]
        shifted[:, 2 * fold :] = y[:, 2 * fold :]
        return self.out(self.inner(shifted).relu())


def test_the_parts_of_a_computed_cut_shrink_together():
    torch.manual_seed(0)
    model, example = Shift(), torch.randn(2, 3, 6)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert not plan.skipped
    assert slim.into.out_channels == 16
    gone = set(plan.removed["into.weight"][0])
    assert [len(gone & set(part)) for part in (range(4), range(4, 8), range(8, 32))] == [2, 2, 12]
    assert pj.verify(model, slim, plan, example).passed
    lost = torch.tensor(sorted(gone))
    with torch.no_grad():
        model.into.weight.index_fill_(0, lost, 0)
        model.into.bias.index_fill_(0, lost, 0)
        model.inner.weight.index_fill_(0, torch.tensor(plan.removed["inner.weight"][0]), 0)
        model.inner.bias.index_fill_(0, torch.tensor(plan.removed["inner.weight"][0]), 0)
        longer = torch.randn(3, 3, 9)
        assert torch.allclose(slim(longer), model(longer), atol=1e-5)


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        return self.out(torch.cat([y[:, -4:], y[:, :-4]], 1))


def test_a_literal_cut_from_the_end_keeps_that_end_only():
    torch.manual_seed(0)
    model, example = Turned(), torch.randn(2, 4)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.into.out_features == 10
    assert not set(plan.removed["into.weight"][0]) & set(range(12, 16))
    assert pj.verify(model, slim, plan, example).passed
