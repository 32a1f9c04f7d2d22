"""A recipe's runtime is the one of all its times, and a runtime that cannot be had is refused before training."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import figures, tiny_recipe
from torch import nn

from penjing.core import UsageError
from penjing.pipeline import _members, compare, dry_run, shape
from penjing.runtimes import prepare

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.6x",
    "runtime": "onnx",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
        "prune": {"criterion": "l2", "scope": "uniform", "round_to": 1},
        "recover": {"epochs": 1, "lr": 0.01, "reconstruct": False},
        "controls": {"scratch": True},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [4]},
    },
}


def runtimes_in(value: Any) -> set[str]:
    """Every `runtime` that stands anywhere in the figures."""
    if isinstance(value, dict):
        own = {value["runtime"]} if "runtime" in value else set()
        return own.union(*(runtimes_in(item) for item in value.values()))
    return set().union(*map(runtimes_in, value)) if isinstance(value, list) else set()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("runtimes")
    shape(tiny_recipe(RECIPE, folder), folder / "run", trust=True)
    return folder / "run"


def test_all_times_of_a_run_are_of_its_runtime(run: Path) -> None:
    rows = {row["name"]: row for row in json.loads((run / "metrics.json").read_text())["rows"]}
    assert {name: row["latency_ms"]["runtime"] for name, row in rows.items()} == dict.fromkeys(rows, "onnx")
    assert runtimes_in(rows["slim"]["speedup"]) == {"onnx"}
    assert runtimes_in(rows["control:scratch"]["against_slim"]) == {"onnx"}


def test_compare_times_in_the_runtime_asked_for(run: Path) -> None:
    code = f"file:{run.parent / 'net.py'}:tiny"
    told = {"data": "builtin:digits", "image_size": 8, "batch_sizes": (2,), "trust": True, "model": code}
    found = compare(str(run), str(run / "model"), runtime="onnx", **told)
    assert runtimes_in([found["rows"], found["speedup"]]) == {"onnx"}
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        compare(str(run), str(run), runtime="onyx", **told)


def test_budgets_of_milliseconds_and_rivals_are_timed_in_the_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    asked = []
    truth = _members.speedup
    monkeypatch.setattr(_members, "speedup", lambda *a, **o: asked.append(o["runtime"]) or truth(*a, **o))
    steps = {**RECIPE["steps"], "controls": {"scratch": False, "smaller": "torchvision:squeezenet1_1"}}
    recipe = tiny_recipe({**RECIPE, "budget": "latency<=0.9x", "image_size": 32, "steps": steps}, tmp_path)
    shape(recipe, tmp_path / "run", trust=True)
    assert set(asked) == {"onnx"}
    how = figures(tmp_path / "run")["prune"]["latency"]
    assert how["measured_ms"] <= how["limit_ms"]


def test_a_runtime_that_is_missing_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'penjing\[onnx\]'"):
        dry_run(tiny_recipe(RECIPE, tmp_path), tmp_path / "run", trust=True)
    assert not (tmp_path / "run").exists()


def test_a_runtime_that_does_not_take_the_network_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(model: nn.Module, *about: Any, runtime: str, **more: Any) -> Any:
        if runtime == "onnx":
            raise UsageError("runtime onnx cannot take Tiny")
        return prepare(model, *about, runtime=runtime, **more)

    monkeypatch.setattr("penjing.pipeline._rehearse.prepare", refused)
    with pytest.raises(UsageError, match="cannot take Tiny"):
        shape(tiny_recipe(RECIPE, tmp_path), tmp_path / "run", trust=True)
    assert not (tmp_path / "run" / "steps").exists()
