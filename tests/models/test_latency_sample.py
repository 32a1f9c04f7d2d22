"""The latency benchmark on a small network and a clock that knows: rows, going on after a stop, and the page."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import nn

from benchmarks import latency
from benchmarks.latency_cases import CASES, Case
from benchmarks.latency_page import page
from penjing.measure import Timing, count_macs
from penjing.search import _within_time


def small() -> tuple[nn.Module, Any]:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return model, torch.randn(1, 3, 8, 8)


class ByMacs:
    """A timekeeper on whose machine a network takes 1 ms and 1 ms per MMAC."""

    def __init__(self, *, reference: nn.Module, example_inputs: Any, **about: Any) -> None:
        self._inputs, self.place = example_inputs, {"device": "by MACs"}
        self.milliseconds = self._true(reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        return Timing(milliseconds=self._true(model), spread=0.0, operators={})

    def _true(self, model: nn.Module) -> float:
        return 1.0 + count_macs(model, self._inputs) / 1e6


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Case]:
    found = {"small": Case(about="two convolutions", make=small, head="6", options={})}
    for room in (latency, _within_time):
        monkeypatch.setattr(room, "Timekeeper", ByMacs)
    monkeypatch.setattr(latency, "CASES", found)
    monkeypatch.setattr("benchmarks.latency_page.CASES", found)
    monkeypatch.setattr(latency, "RUNTIMES", ("eager",))
    monkeypatch.setattr(latency, "SHARES", (0.5,))
    monkeypatch.setattr(latency, "UNSEEN", 3)
    monkeypatch.setenv("PENJING_CACHE", "unused")
    return found


def test_rows_are_made_once_and_told(cases: Mapping[str, Case], tmp_path: Path) -> None:
    pytest.importorskip("torch_pruning")
    rows = latency.run(tmp_path)
    budget, unseen = rows["small", "eager", "0.5"], rows["small", "eager", "unseen"]
    assert budget["status"] == unseen["status"] == "done"
    assert all(0.95 * 0.5 <= share <= 0.5 for share in budget["measured"])
    assert len(budget["measured"]) == 5
    assert budget["peer"]["macs"] == pytest.approx(budget["macs"], rel=0.1)
    assert unseen["p90"] < 1e-3
    assert len(unseen["pairs"]) == 3
    path = tmp_path / "small-eager-0.5.json"
    path.write_text(json.dumps({**budget, "seconds": 12345.0}))
    text = page(latency.run(tmp_path))
    assert "| 12345 |" in text
    assert "| small | eager | 0.500 |" in text


def test_a_failure_is_a_row_that_says_so(
    cases: Mapping[str, Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> tuple[nn.Module, Any]:
        raise RuntimeError("no such network")

    monkeypatch.setitem(latency.CASES, "small", replace(cases["small"], make=broken))
    rows = latency.run(tmp_path)
    assert {row["status"] for row in rows.values()} == {"failed: RuntimeError: no such network"}
    assert "no such network" in page(rows)


def test_the_recurrent_case_runs_on_its_inputs() -> None:
    model, example = CASES["lstm"].built()
    with torch.no_grad():
        assert model(example).shape == (8, 35)
    assert dict(model.named_modules())[CASES["lstm"].head].out_features == 35
