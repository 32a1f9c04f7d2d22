"""What the example inputs cut away unread stays: position tables and causal masks longer than the example."""

import pytest
import torch
from torch import nn

import penjing as pj


class Positions(nn.Module):
    """A causal mask, a learned table and one that a layer computes, all cut to the sequence's length."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.key, self.out = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(8, 3)
        self.register_buffer("mask", torch.tril(torch.ones(12, 12))[None])
        self.table = nn.Parameter(torch.randn(1, 12, 8))
        self.filter = nn.Linear(5, 8)
        self.register_buffer("places", torch.randn(12, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = x.shape[1]
        x = self.into(x) + self.table[:, :n] + self.filter(self.places)[:n]
        k = self.key(x)
        scores = (k @ k.transpose(1, 2)).masked_fill(self.mask[:, :n, :n] == 0, float("-inf"))
        return self.out(scores.softmax(-1) @ x)


def test_rows_of_tables_beyond_the_example_stay():
    model, example, longer = Positions().eval(), torch.randn(2, 5, 4), torch.randn(1, 12, 4)
    structure = pj.trace(model, example)
    owned = {(s.name, s.dim) for g in structure.groups for s in g.slots}
    assert owned.isdisjoint({("mask", 1), ("mask", 2), ("table", 1), ("places", 0)})
    causes = {
        f.cause for f in structure.frozen if f.parameter in ("mask", "table", "places") and f.count == 7
    }
    assert len(causes) == 1
    assert "add an input that reads all of it" in causes.pop()
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.into.out_features == 4
    assert slim.key.out_features == 3
    assert pj.verify(model, slim, plan, longer).passed


@pytest.mark.parametrize("examples", [[torch.randn(2, 6)], [torch.randn(2, 6), torch.randn(3, 6)]])
def test_what_another_slice_reads_is_free(examples: list[torch.Tensor]):
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.into = 8, nn.Linear(6, 16)
            self.a, self.b = nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.into(x)
            return self.a(y[:, : self.width]) + self.b(y[:, self.width :])

    structure = pj.trace(Halves().eval(), examples)
    assert sum(len(g) for g in structure.groups) == 16


def test_rows_of_a_weight_that_no_slice_reads_stay():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.width, self.into, self.out = 5, nn.Parameter(torch.randn(8, 6)), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out((x @ self.into[: self.width].t()).relu())

    structure = pj.trace(Part().eval(), torch.randn(2, 6))
    assert [len(g) for g in structure.groups] == [5]
    assert {f.count for f in structure.frozen if (f.parameter, f.dim) == ("into", 0)} == {3}


class Prefix(nn.Module):
    """Reads the first values of channels times places; which channels these are depends on the extent."""

    def __init__(self, capsules: bool) -> None:
        super().__init__()
        self.capsules, self.body = capsules, nn.Conv2d(3, 16, 1)
        self.out = nn.Linear(24, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x).relu()
        if self.capsules:
            return self.out(y.view(y.shape[0], -1, 8)[:, :3].flatten(1))
        return self.out(y.flatten(1)[:, :24])


@pytest.mark.parametrize(
    ("capsules", "cause"), [(False, "how many places the input has"), (True, "cut away before it is read")]
)
def test_channels_behind_a_cut_of_channels_times_places_stay(capsules: bool, cause: str):
    structure = pj.trace(Prefix(capsules).eval(), torch.randn(2, 3, 2, 2))
    assert not structure.groups
    causes = {f.cause for f in structure.frozen if f.parameter == "body.bias"}
    assert any(cause in found for found in causes)


def test_channels_that_no_slice_of_channels_reads_are_free():
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.Conv2d(3, 16, 1), nn.Linear(24, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.body(x)[:, :6].relu().flatten(1))

    structure = pj.trace(Part().eval(), torch.randn(2, 3, 2, 2))
    assert sum(len(g) for g in structure.groups) == 10


def test_halves_of_channels_flattened_with_their_places_shrink():
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = nn.Conv2d(3, 16, 1), nn.Linear(32, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.body(x).flatten(1)
            half = y.shape[1] // 2
            return self.out(y[:, :half] * y[:, half:].sigmoid())

    model, x = Halves().eval(), torch.randn(2, 3, 2, 2)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.body.out_channels == 8
    assert pj.verify(model, slim, plan, x).passed


class Open(nn.Module):
    """Cuts channels times places at a literal; other readers of all channels do not make that right."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.body = kind, nn.Conv2d(3, 16, 1)
        self.head, self.pooled, self.sized = nn.Linear(24, 2), nn.Linear(16, 2), nn.Linear(40, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x).relu()
        flat = y.flatten(1)
        if self.kind == "pooled":
            return self.head(flat[:, :24]) + self.pooled(y.mean((2, 3)))
        if self.kind == "behind":
            return flat[:, 24:].sum(1)
        return flat[:, :-24].sum(1) if self.kind == "before" else self.sized(flat[:, 24:])


@pytest.mark.parametrize(("kind", "free"), [("pooled", 0), ("behind", 0), ("before", 0), ("sized", 10)])
def test_literal_cuts_of_channels_times_places_shrink_where_a_weight_sizes_them(kind: str, free: int):
    structure = pj.trace(Open(kind).eval(), torch.randn(2, 3, 2, 2))
    assert sum(len(g) for g in structure.groups) == free


def test_channels_inside_the_places_they_are_flattened_with_shrink():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x).relu().flatten(1)[:, :8].sum(1)

    structure = pj.trace(Last().eval(), torch.randn(2, 4, 3))
    assert sum(len(g) for g in structure.groups) == 8
