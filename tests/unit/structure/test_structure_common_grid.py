"""Two ways of cutting one dim into groups meet on their common grid."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import penjing as pj
from penjing.structure._labels._atoms import Atoms
from penjing.structure._labels._factors import common_grid

GRIDS = [
    ((4, 4), (2, 8), (2, 2, 4)),
    ((2, 2), (4,), (2, 2)),
    ((2, 3), (3, 2), (6,)),
    ((2, 6), (6, 2), (2, 3, 2)),
    ((6, 4), (4, 6), (12, 2)),
]


@pytest.mark.parametrize(("a", "b", "grid"), GRIDS)
def test_the_coarsest_common_grid(a: tuple[int, ...], b: tuple[int, ...], grid: tuple[int, ...]):
    size = int(np.prod(a))
    columns = [c for shape in (a, b) for c in np.unravel_index(np.arange(size), shape)]
    assert common_grid(columns) == grid


def test_an_irregular_column_has_no_grid():
    assert common_grid([np.array([0, 0, 1, 1, 2, 3]), np.arange(6)]) == (6,)


def test_products_are_joined_on_their_common_grid():
    atoms = Atoms()
    a = atoms.merge([(atoms.fresh(4),), (atoms.fresh(4),)], (4, 4))
    b = atoms.merge([(atoms.fresh(2),), (atoms.fresh(8),)], (2, 8))
    atoms.unify(a, b, "conflict")
    ours, theirs = atoms.expand(a), atoms.expand(b)
    assert sorted(len(np.unique(c)) for c in ours) == [2, 2, 4]
    assert {c.tobytes() for c in ours} == {c.tobytes() for c in theirs}


class Groups(nn.Module):
    """One stream read by convolutions of 4 and of 2 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)
        self.fine, self.coarse = nn.Conv2d(16, 16, 3, padding=1, groups=4), nn.Conv2d(16, 16, 1, groups=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.fine(x) + self.coarse(x))


@pytest.mark.parametrize(
    ("options", "kept", "groups"), [({}, 8, (4, 2)), ({"granularity": ("group",)}, 4, (1, 1))]
)
def test_two_group_counts_share_a_stream(options: dict[str, Any], kept: int, groups: tuple[int, int]):
    torch.manual_seed(0)
    model, example = Groups().eval(), torch.randn(1, 3, 6, 6)
    slim, plan = pj.prune(model, example, ratio=0.5, **options)
    assert not plan.skipped
    assert (slim.stem.out_channels, slim.fine.groups, slim.coarse.groups) == (kept, *groups)
    assert pj.verify(model, slim, plan, torch.randn(2, 3, 9, 9)).passed


class Norms(nn.Module):
    """One stream under norms of 6 and of 4 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Conv1d(3, 24, 3, padding=1), nn.Conv1d(24, 24, 1), nn.Conv1d(24, 2, 1)
        self.sixths, self.quarters = nn.GroupNorm(6, 24), nn.GroupNorm(4, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.sixths(self.a(x)))
        return self.out(x + torch.relu(self.quarters(self.b(x))))


def test_norms_over_different_groups_share_a_stream():
    torch.manual_seed(0)
    model, example = Norms().eval(), torch.randn(2, 3, 10)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert not plan.skipped
    assert (slim.a.out_channels, slim.sixths.num_groups, slim.quarters.num_groups) == (12, 6, 4)
    assert pj.verify(model, slim, plan, torch.randn(1, 3, 17)).passed


def test_what_only_goes_as_a_whole_is_frozen_with_a_cause():
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            x = x + torch.stack([x[..., 3:], x[..., :3]], -1).flatten(-2) + x.flip(-1)
            return self.out(self.b(x))

    structure = pj.trace(Mixed().eval(), torch.randn(2, 3))
    assert all(len(group) > 1 for group in structure.groups)
    assert {(f.parameter, f.count) for f in structure.frozen if f.count == 6} >= {
        ("a.weight", 6),
        ("a.bias", 6),
    }
