"""Wrong use is told plainly: what, where, why and the way out."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import penjing as pj
from penjing.core import UsageError, VerificationError


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_nothing_is_proven_on_no_examples():
    with pytest.raises(UsageError, match="only empty tensors"):
        pj.prune(network(), torch.randn(0, 4), ratio=0.5)


class Empty(nn.Module):
    """Gives the examples beyond the tenth."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)[10:]


def test_empty_outputs_prove_nothing():
    with pytest.raises(VerificationError, match="are empty"):
        pj.prune(Empty(), torch.randn(2, 4), ratio=0.5)


def test_masks_of_torch_are_refused_with_the_way_out():
    model = network()
    torch_prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(UsageError, match=r"prune\.remove\(module, 'weight'\)"):
        pj.trace(model, torch.randn(2, 4))


@pytest.mark.parametrize("plan", [{}, None, "plan"])
def test_a_plan_must_be_a_plan(plan: Any):
    with pytest.raises(UsageError, match="give the Plan"):
        pj.apply(network(), plan)
