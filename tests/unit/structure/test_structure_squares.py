"""Index i of one dim meets index i of the other: identities, triangles, diagonals."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj


class Fused(nn.Module):
    """A convolution with its identity branch folded into the kernel, anew in each forward."""

    def __init__(self, width: int = 16, columns: int = 16):
        super().__init__()
        self.width, self.columns = width, columns
        self.into, self.out = nn.Conv2d(3, columns, 1), nn.Conv2d(width, 2, 1)
        self.kernel, self.scale = (
            nn.Parameter(torch.randn(width, columns, 1, 1)),
            nn.Parameter(torch.randn(width)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        eye = torch.eye(self.width, self.columns, dtype=x.dtype)
        weight = self.kernel + (eye * self.scale[:, None])[..., None, None]
        return self.out(F.conv2d(self.into(x), weight))


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_an_identity_ties_its_rows_to_its_columns(ratio: float):
    torch.manual_seed(0)
    model, example = Fused(), torch.randn(2, 3, 4, 4)
    slim, plan = pj.prune(model, example, ratio=ratio)
    assert pj.verify(model, slim, plan, example).passed
    assert not plan.skipped
    assert plan.removed["kernel"][0] == plan.removed["kernel"][1]
    with torch.no_grad():
        for name, dims in plan.removed.items():
            for dim, lost in dims.items():
                model.get_parameter(name).index_fill_(dim, torch.tensor(lost), 0)
        assert torch.allclose(model(example), slim(example), atol=1e-5)


def test_an_identity_that_is_not_square_stays():
    structure = pj.trace(Fused(16, 12), torch.randn(2, 3, 4, 4))
    assert not structure.groups
    assert any("not as many of both" in f.cause for f in structure.frozen)


class Symmetric(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.square, self.out = (
            nn.Linear(4, 12),
            nn.Parameter(torch.randn(12, 12)),
            nn.Linear(12, 3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.square.triu() + self.square.triu(1).T
        return self.out(F.linear(self.into(x), weight) * self.square.diagonal())


def test_a_triangle_ties_its_rows_to_its_columns():
    torch.manual_seed(0)
    model, example = Symmetric(), torch.randn(2, 4)
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.square.shape == (6, 6)
    assert not plan.skipped
    assert plan.removed["square"][0] == plan.removed["square"][1] == plan.removed["into.weight"][0]
    assert pj.verify(model, slim, plan, example).passed
