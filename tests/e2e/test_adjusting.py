"""Runs that change components before they prune: named ones of every kind, and those that the run finds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import penjing as pj
from penjing.core import Plan, Recipe, UsageError
from penjing.pipeline import Event, shape
from penjing.sources import load_source
from penjing.surgery import ADJUSTMENT_KINDS

NAMED = (
    (
        "stem.0: its kernel shrank to 3x3",
        "stem.2: its activation became relu",
        "pool: its pooling became average pooling",
        "a.first: a shortcut was added around it",
        "b: dropped",
        "pair.0 to pair.2: merged into one convolution, inexactly",
        "mix: its attention became each token's own features and the mean of all",
        "gap to fc: the head became the mean over places and one layer",
    ),
    (
        "stem.0: it reads 50% of the pixels along each side",
        "a.first.0: split into columns and rows of rank 8",
        "a.last: the branch was dropped",
        "b.first.0: made depthwise separable, 1 kernels per channel",
        "pair: dropped, bridged by a 1x1 convolution",
        "wide: factorised to rank 8",
    ),
    ("stem.0 to stem.1: batch norm folded into it", "pair.0: its stride grew to 2x2"),
)


def recipe(network: str, adjust: dict[str, Any], **more: Any) -> Recipe:
    steps = {
        "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
        "adjust": {"calibration": 64, **adjust},
        "prune": {"criterion": "l2", "scope": "global", "round_to": 1, "calibration": 64},
        "recover": {"epochs": 1, "lr": 0.01},
        "controls": {"scratch": True},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    }
    data = {"source": "builtin:digits", "splits": [400, 100, 200]}
    values = {"task": "image-classification", "model": network, "data": data, "image_size": 16}
    return Recipe.of({**values, "budget": "macs<=0.3x", "steps": steps, **more})


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("network") / "net.py"
    shutil.copy(Path(__file__).parent / "networks" / "adjustable.py", place)
    return f"file:{place}:adjustable"


def kinds_of(out: Path) -> list[str]:
    edits = json.loads((out / "plan.json").read_text())["edits"]
    return [edit["adjustment"] for edit in edits if edit["kind"] == "adjust_component"]


def test_every_kind_is_among_the_named() -> None:
    words = {
        "activation": "activation", "branch": "branch", "bridge": "bridged", "drop": "b: dropped", "fold_norm": "norm",
        "head": "head", "kernel": "kernel", "low_rank": "factorised", "merge": "merged", "mix": "attention",
        "pool": "pooling", "resolution": "pixels", "separable": "separable", "shortcut": "shortcut",
        "spatial": "columns", "stride": "stride",
    }  # fmt: skip
    assert set(words) == set(ADJUSTMENT_KINDS)
    assert all(any(word in says for run in NAMED for says in run) for word in words.values())


@pytest.mark.parametrize("named", NAMED)
def test_named_adjustments_are_done_proven_trained_and_saved(
    network: str, named: tuple[str, ...], tmp_path: Path
) -> None:
    out, events = tmp_path / "run", list[Event]()
    metrics = shape(recipe(network, {"do": list(named)}), out, trust=True, listen=events.append)
    rows = {row["name"]: row for row in metrics["rows"]}
    assert rows["slim"]["macs"] <= 0.3 * rows["transferred"]["macs"]
    assert set(named) <= set(metrics["notes"])
    assert [event.text for event in events if event.kind == "note" and event.step == "adjust"] == list(named)
    original = load_source(network, trust_files=True).model
    plan = Plan.from_json((out / "plan.json").read_text())
    assert set(named) <= set(plan.policies)
    slim, x = pj.load(out / "model", model=original), torch.randn(2, 1, 16, 16)
    assert {k for k, _ in slim.named_parameters()} == {
        k for k, _ in pj.apply(original, plan).named_parameters()
    }
    assert slim(x).shape == (2, 10)
    assert rows["control:scratch"]["params"] == rows["slim"]["params"]


def test_what_a_run_finds_by_itself_stands_in_words_and_figures(network: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    metrics = shape(recipe(network, {"edits": 2}, budget="latency<=0.6x"), out, trust=True)
    found = json.loads((out / "adjustments.json").read_text())
    assert found["metric"] == "milliseconds"
    assert 1 <= len(found["done"]) <= 2
    told = [one["told"] for one in found["done"]]
    assert set(told) <= set(metrics["notes"])
    assert all(" ms, " in text and "% calibration loss" in text for text in told)
    assert found["done"][-1]["milliseconds"] < found["start"]["milliseconds"]
    assert all(option["loss"] is not None for option in found["options"])
    assert set(told) <= set(Plan.from_json((out / "plan.json").read_text()).policies)
    slim = next(row for row in metrics["rows"] if row["name"] == "slim")
    assert slim["macs_ratio"] < 1


def test_what_is_no_adjustment_is_refused_before_anything_is_trained(network: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nearest: b: dropped"):
        shape(recipe(network, {"do": ["b: droped"]}), tmp_path / "a", trust=True)
    with pytest.raises(UsageError, match=r"steps.adjust.kinds: drops is none. Known: activation, branch"):
        shape(recipe(network, {"edits": 1, "kinds": ["drops"]}), tmp_path / "b", trust=True)
