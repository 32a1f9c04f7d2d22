"""Calibration batches and losses that cannot work are named by their number."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

X, Y = torch.randn(8, 3, 8, 8), torch.arange(8) % 5


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    ).eval()


def cross_entropy(outputs: Any, batch: Any) -> Any:
    return F.cross_entropy(outputs, batch[1])


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize(
    ("batch", "loss", "said"),
    [
        ((X, Y + 20), cross_entropy, r"failed on calibration batch 1 \(IndexError: .*labels"),
        ((X, Y.float()), cross_entropy, r"failed on calibration batch 1 \(RuntimeError: .*labels"),
        ((X, Y), F.cross_entropy, r"failed on calibration batch 0 .*whole batch"),
        ((X[:, 0, 0], Y), cross_entropy, r"does not take calibration batch 1 .*example_inputs"),
        (None, cross_entropy, r"does not take calibration batch 1 \(TypeError"),
    ],
    ids=["labels out of range", "labels no whole numbers", "a loss of its own", "another shape", "none"],
)
def test_what_fails_on_a_batch_is_told(criterion: str, batch: Any, loss: Any, said: str) -> None:
    with pytest.raises(pj.UsageError, match=said):
        pj.prune(
            network(), X[:1], budget="macs<=0.5x", criterion=criterion, calibration=[(X, Y), batch], loss=loss
        )


@pytest.mark.parametrize("criterion", ["obs", "activation"])
def test_a_batch_of_another_shape_is_told_without_a_loss(criterion: str) -> None:
    with pytest.raises(pj.UsageError, match=r"does not take calibration batch 1 "):
        pj.prune(network(), X[:1], budget="macs<=0.5x", criterion=criterion, calibration=[X, X[:, 0, 0]])
