"""A budget of milliseconds through the main job, on a clock that the test keeps: 1 ms and 0.1 ms per kMAC."""

import json
from pathlib import Path
from typing import Any, Self

import pytest
from tiny_runs import figures, tiny_recipe
from torch import nn

from penjing.core import BudgetError, UsageError
from penjing.measure import Timing, count_macs
from penjing.pipeline import Event, shape
from penjing.search import _within_time

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "latency<=0.6x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 1, "lr": 0.01},
        "prune": {"criterion": "obs", "scope": "global", "round_to": 1, "calibration": 128},
        "recover": {"epochs": 1, "lr": 0.01, "reconstruct": False},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}


class Clock:
    asked: dict[str, Any] = {}

    def __init__(self, *, reference: nn.Module, example_inputs: Any, **about: Any) -> None:
        self._inputs = example_inputs
        type(self).asked = about
        self.milliseconds = self._true(reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    @property
    def place(self) -> dict[str, str]:
        return {"device": f"the test's own clock, {type(self).__name__}"}

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        return Timing(milliseconds=self._true(model), spread=0.0, operators={})

    def _true(self, model: nn.Module) -> float:
        return 1.0 + count_macs(model, self._inputs) / 1e4


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_within_time, "Timekeeper", Clock)


def test_the_run_says_how_the_milliseconds_were_reached(tmp_path: Path) -> None:
    metrics = shape(tiny_recipe(RECIPE, tmp_path), tmp_path / "run", trust=True)
    how = figures(tmp_path / "run")["prune"]["latency"]
    assert 0.55 <= how["measured_ms"] / how["reference_ms"] <= 0.6
    assert how["limit_ms"] == pytest.approx(0.6 * how["reference_ms"])
    assert how["networks"] >= 13
    assert Clock.asked.pop("form").__name__ == "folded"
    assert Clock.asked == {"runtime": "eager", "batch_size": 8, "threads": None}
    slim = next(row for row in metrics["rows"] if row["name"] == "slim")
    assert slim["macs_ratio"] < 0.62
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["budget"] == "latency<=0.6x"


def test_milliseconds_out_of_reach_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = tiny_recipe({**RECIPE, "budget": "latency<=1.0001ms"}, tmp_path)
    with pytest.raises(BudgetError, match="the nearest that can is about latency<="):
        shape(recipe, tmp_path / "run", trust=True)
    assert not (tmp_path / "run" / "steps").exists()


def test_rounds_take_the_same_share_of_the_time_each(tmp_path: Path) -> None:
    steps = {**RECIPE["steps"], "prune": {**RECIPE["steps"]["prune"], "rounds": 2, "between": 1}}
    shape(tiny_recipe({**RECIPE, "steps": steps}, tmp_path), tmp_path / "run", trust=True)
    found = figures(tmp_path / "run")
    first, last = (found[name]["latency"] for name in ("prune:1", "prune"))
    assert first["limit_ms"] / first["reference_ms"] == pytest.approx(0.6**0.5, rel=1e-3)
    assert last["limit_ms"] / last["reference_ms"] == pytest.approx(0.6)


def test_tries_share_one_table_and_are_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = []
    learn = _within_time.learn_table
    monkeypatch.setattr(
        _within_time, "learn_table", lambda *given, **how: learnt.append(1) or learn(*given, **how)
    )
    prune = {"calibration": 32, "round_to": 1}
    choose = {"seconds": 1000, "examples": 32, "candidates": 3, "rungs": [], "keep": []}
    steps = {
        **RECIPE["steps"],
        "prune": prune,
        "choose": choose,
        "trim": {"blocks": 0},
        "adjust": {"edits": 0},
    }
    shape(tiny_recipe({**RECIPE, "steps": steps}, tmp_path), tmp_path / "run", trust=True)
    tried = json.loads((tmp_path / "run" / "tried.json").read_text())
    reference = figures(tmp_path / "run")["prune"]["latency"]["reference_ms"]
    assert [one["name"] for one in tried["candidates"]][:2] == ["obs-round-1", "taylor-round-1"]
    made = [one for one in tried["candidates"] if one["scores"]]
    assert len(made) >= 2
    assert all(0.55 <= one["latency_ms"] / reference <= 0.6 for one in made)
    assert len(learnt) == 2  # one for all tries, and that of the step prune


def test_tries_that_are_broken_off_go_on_by_the_same_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, places = [], ["taylor-round-1.0"]
    learn = _within_time.learn_table
    monkeypatch.setattr(
        _within_time, "learn_table", lambda *given, **how: learnt.append(1) or learn(*given, **how)
    )
    prune = {"calibration": 32, "round_to": 1}
    choose = {"seconds": 1000, "examples": 32, "candidates": 2, "rungs": [], "keep": []}
    steps = {
        **RECIPE["steps"],
        "prune": prune,
        "choose": choose,
        "trim": {"blocks": 0},
        "adjust": {"edits": 0},
    }
    recipe = tiny_recipe({**RECIPE, "steps": steps}, tmp_path)

    def listen(event: Event) -> None:
        if places and event.stage == places[0]:
            places.pop()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shape(recipe, tmp_path / "run", trust=True, listen=listen)
    assert len(learnt) == 1
    shape(recipe, tmp_path / "run", trust=True, listen=listen, resume=True)
    assert len(learnt) == 2  # the other is that of the step prune
    tried = json.loads((tmp_path / "run" / "tried.json").read_text())["candidates"]
    assert [len(one["scores"]) for one in tried] == [1, 1]
    assert 0.55 <= tried[1]["latency_ms"] / tried[0]["latency_ms"] <= 1.8


def test_zeros_that_fit_no_layer_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    steps = {**RECIPE["steps"], "sparsify": {"pattern": "500:1000"}}
    with pytest.raises(UsageError, match="500:1000"):
        shape(tiny_recipe({**RECIPE, "steps": steps}, tmp_path), tmp_path / "run", trust=True)
    assert not (tmp_path / "run" / "steps").exists()
