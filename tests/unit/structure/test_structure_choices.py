"""Ops whose output size only data can tell: everything is chosen while tracing, and real runs choose as before."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj


class Chooses(nn.Module):
    """Keeps the rows that score, works on them, and writes them back by the same mask."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.score = nn.Linear(6, 16), nn.Linear(16, 1)
        self.inner, self.head = nn.Linear(16, 12), nn.Linear(12, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.body(x))
        good = self.score(h)[:, 0] > 0
        rows = torch.nonzero(good)[:, 0]
        h = h.clone()
        h[good] = self.head(F.relu(self.inner(h[good]))) + h[rows]
        return self.out(h)


class Experts(nn.Module):
    """Each token goes to the experts it scores for; their results are added by place."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 10), nn.GELU(), nn.Linear(10, 8)) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            out.index_add_(0, rows, expert(x[rows]) * weights[rows, place, None])
        return out


def _zeroed(model: nn.Module, plan: pj.Plan) -> nn.Module:
    import copy

    twin = copy.deepcopy(model)
    tensors = dict(twin.named_parameters())
    with torch.no_grad():
        for name, dims in plan.removed.items():
            for dim, gone in dims.items():
                tensors[name].index_fill_(dim, torch.tensor(gone), 0)
    return twin


@pytest.mark.parametrize(("network", "width"), [(Chooses, 6), (Experts, 8)])
def test_rows_chosen_by_data_are_followed_and_proven(network: type[nn.Module], width: int):
    torch.manual_seed(0)
    model, x = network().double().eval(), torch.randn(9, width, dtype=torch.float64)
    structure = pj.trace(model, x)
    assert structure.unknown_ops == ()
    assert structure.traces[0].chosen
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert plan.skipped == ()
    assert pj.verify(model, slim, plan, x).passed
    with torch.no_grad():
        torch.testing.assert_close(slim(x), _zeroed(model, plan)(x), rtol=0, atol=1e-12)


class WithNone(nn.Module):
    """A class more than there are experts stands for no expert; each expert's rows lie in one table."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.table = nn.Linear(8, 3), nn.Parameter(torch.randn(3 * 10, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        mask = F.one_hot(chosen, num_classes=4).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for number in (mask.sum((-1, -2)) > 0).nonzero():
            place, rows = torch.where(mask[number[0]])
            matrix = self.table.view(3, -1, 8)[number[0]]
            out.index_add_(0, rows, F.gelu(x[rows] @ matrix.T) @ matrix * weights[rows, place, None])
        return out


def test_a_last_class_that_stands_for_none_is_spared():
    torch.manual_seed(0)
    model, x = WithNone().eval(), torch.randn(9, 8)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.table.shape == (15, 8)
    assert pj.verify(model, slim, plan, x).passed


def test_the_widths_of_what_is_chosen_are_halved():
    slim, _ = pj.prune(Chooses().eval(), torch.randn(9, 6), ratio=0.5)
    assert (slim.body.out_features, slim.inner.out_features) == (8, 6)
    slim, _ = pj.prune(Experts().eval(), torch.randn(9, 8), ratio=0.5)
    assert [expert[0].out_features for expert in slim.experts] == [5, 5, 5]


def test_boxes_kept_by_suppression_are_followed():
    ops = pytest.importorskip("torchvision.ops")

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.boxes = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
            self.score, self.head = nn.Conv2d(8, 1, 1), nn.Linear(8 * 4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = F.relu(self.body(x))
            boxes = self.boxes(h)[0].flatten(1).T
            boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:].exp()], 1)
            kept = ops.nms(boxes, self.score(h)[0].flatten(), 0.5)
            return self.head(ops.roi_align(h, [boxes[kept]], 2).flatten(1))

    model, x = Detector().eval(), torch.randn(1, 3, 6, 6)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.body.out_channels == 4
    assert slim.head.in_features == 16
    assert pj.verify(model, slim, plan, x).passed


def test_elements_told_apart_by_kind_are_of_one_kind_while_tracing():
    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.kind, self.out = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = F.relu(self.body(x))
            kinds = self.kind(h).argmax(1)
            parts = [self.out(h[kinds == kind]).sum(0) for kind in torch.unique(kinds)]
            return torch.stack(parts).sum(0)

    model, x = Kinds().double().eval(), torch.randn(9, 5, dtype=torch.float64)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.body.out_features == 4
    assert pj.verify(model, slim, plan, x).passed
    with torch.no_grad():
        torch.testing.assert_close(slim(x), _zeroed(model, plan)(x), rtol=0, atol=1e-12)


def test_a_value_that_the_forward_reads_is_refused_with_the_fix():
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x)
            return self.b(h) if h.sum().item() > 0 else h

    with pytest.raises(pj.TraceError, match="outside the forward"):
        pj.trace(Reads(), torch.randn(2, 4))


def test_a_size_without_a_stand_in_is_refused_by_name():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.unique_consecutive(self.a(x))

    with pytest.raises(pj.TraceError, match="unique_consecutive"):
        pj.trace(Counts(), torch.randn(2, 4))
