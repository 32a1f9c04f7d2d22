"""Plans from units a user chose by hand."""

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.core import UsageError
from penjing.surgery import plan_removal


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).eval()


def test_units_in_any_order_become_sorted_slices():
    structure = pj.trace(network(), torch.randn(2, 3))
    plan = plan_removal(structure, {"0.weight:0": [4, 1, 4]})
    assert {name: dict(dims) for name, dims in plan.removed.items()} == {
        "0.weight": {0: (1, 4)},
        "0.bias": {0: (1, 4)},
        "2.weight": {1: (1, 4)},
    }


def test_an_unknown_group_is_named_with_the_known_ones():
    structure = pj.trace(network(), torch.randn(2, 3))
    with pytest.raises(UsageError, match=r"'nothing'.*0\.weight:0"):
        plan_removal(structure, {"nothing": [0]})


def test_a_group_keeps_one_unit():
    structure = pj.trace(network(), torch.randn(2, 3))
    with pytest.raises(UsageError, match="keep one"):
        plan_removal(structure, {"0.weight:0": range(6)})
