"""What a run says of places that it does not time, and of splits that are not as asked."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core import Place, Recipe
from penjing.pipeline import _scalability
from penjing.pipeline._learn import _of_splits

RECIPE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


@pytest.mark.parametrize(
    ("monkeyed", "said"),
    [
        (
            {"physical_memory": lambda: 1e6},
            r"4096 examples would hold about [\d.]+ GB, more than half of this machine's memory",
        ),
        ({"LONGEST": 0.0}, r"one forward of 4096 examples would take about \d+ s"),
        ({}, ""),
    ],
)
def test_giant_batches_are_left_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, monkeyed: dict[str, Any], said: str
) -> None:
    for name, value in monkeyed.items():
        monkeypatch.setattr(_scalability, name, value)
    job: Any = SimpleNamespace(
        recipe=Recipe.of(RECIPE), inputs=SimpleNamespace(example=lambda n: torch.ones(n, 64))
    )
    assert re.fullmatch(
        said, _scalability._too_much(job, nn.Linear(64, 8), Place(batch_size=4096, device="cpu"))
    )
    assert not _scalability._too_much(job, nn.Linear(64, 8), Place(batch_size=8, device="cpu"))


def test_counts_of_splits_that_could_not_be_met_are_told() -> None:
    data: Any = SimpleNamespace(n=lambda name: {"train": 400, "selection": 10, "certification": 10}[name])
    assert _of_splits((400, 5, 5), data).startswith("splits of 400/10/10 examples are used, not 400/5/5")
    assert not _of_splits((400, 10, 10), data)
    assert not _of_splits((0.6, 0.2, 0.2), data)
    assert not _of_splits(None, data)
