"""Modules and parameters that a forward makes itself: what nothing reads of them does not count."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import penjing as pj
from penjing.structure import trace_forward


class Swapping(nn.Module):
    """Its first forward puts a module of its own making in the place of one, with that one's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.swapped = False
        self.inner, self.head = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8)), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.swapped:
            fresh = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8))
            fresh[0], fresh[2] = self.inner[0], self.inner[2]
            self.inner, self.swapped = fresh, True
        return self.head(self.inner(x))


class Rebuilding(nn.Module):
    """Every forward builds a layer of the present sizes and gives it the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fresh = nn.Linear(self.b.in_features, self.b.out_features)
        fresh.weight, fresh.bias = self.b.weight, self.b.bias
        return fresh(self.a(x))


class Unlearned(nn.Module):
    """Reads a weight by other tensor objects that show the same memory."""

    def __init__(self, by_data: bool) -> None:
        super().__init__()
        self.by_data, self.a = by_data, nn.Linear(6, 8)
        self.w = nn.Parameter(torch.randn(3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.a(x)
        return F.linear(h.data, self.w.data) if self.by_data else F.linear(h, nn.Parameter(self.w))


@pytest.mark.parametrize(
    ("make", "name", "kept"),
    [
        (Swapping, "inner.0", 6),
        (Rebuilding, "a", 4),
        (lambda: Unlearned(True), "a", 4),
        (lambda: Unlearned(False), "a", 4),
    ],
)
def test_layers_beside_fresh_parts_shrink(make: type[nn.Module], name: str, kept: int):
    torch.manual_seed(0)
    model, x = make().eval(), torch.randn(2, 6)
    before = dict(model.named_modules())
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.get_submodule(name).out_features == kept
    assert pj.verify(model, slim, plan, x).passed
    assert dict(model.named_modules()) == before


def test_a_fresh_part_whose_own_numbers_count_is_not_proven():
    class Drawing(Rebuilding):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.Linear(8, 3)(self.a(x))

    with pytest.raises(pj.VerificationError):
        pj.prune(Drawing().eval(), torch.randn(2, 6), ratio=0.5)


def test_only_what_is_filled_in_vain_leaves_the_graph():
    graph = trace_forward(Rebuilding().eval(), torch.randn(2, 6)).graph
    ops = [call.op for call in graph.calls]
    assert torch.ops.aten.uniform_.default not in ops
    assert ops.count(torch.ops.aten.addmm.default) == 2
    spans = {m.path: (m.first_op, m.last_op) for m in graph.modules}
    assert spans["a"] == (0, 2)
    assert spans[""][1] == len(ops)
