"""A trace on plain integers sees the ops of one that follows where integers come from."""

import functools

import pytest
import torch
from torch import nn

from penjing.structure._tracing._trace import trace_forward


@functools.cache
def table(n: int) -> torch.Tensor:
    return torch.arange(n).float()


class Asking(nn.Module):
    """Reads sizes, a memoised table and a kind of number."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.shape, self.inner = 6, (2, 3), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            x = self.inner(x) + table(self.width) + table(6)
        n = x.shape[0] if x.numel() > len(x) else x.size(-1)
        return x.view(n, *self.shape).flatten(1)[:, : self.width]


@pytest.mark.parametrize("training", [False, True])
def test_plain_integers_change_no_op(training: bool):
    model = Asking()
    known, plain = (
        trace_forward(model, torch.randn(4, 6), training=training, provenance=p) for p in (True, False)
    )
    assert [(c.op, c.args, c.outputs) for c in known.graph.calls] == [
        (c.op, c.args, c.outputs) for c in plain.graph.calls
    ]
    assert any(c.sizes for c in known.graph.calls)
    assert not any(c.sizes for c in plain.graph.calls)
    assert plain.compared == {}
    assert type(model.width) is int
