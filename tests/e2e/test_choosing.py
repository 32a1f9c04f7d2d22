"""Methods are tried on the data; a run that is broken off amid the tries ends with the same choice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import figures, tiny_recipe

from penjing.core import Recipe
from penjing.pipeline import Event, dry_run, shape
from penjing.tasks import Labelled

RECIPE: dict[str, Any] = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
    "image_size": 8,
    "margin": 1.0,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 1, "lr": 0.01},
        "choose": {"seconds": 1000, "examples": 32, "candidates": 7, "rungs": [0.2], "keep": [2]},
        "prune": {"calibration": 32},
        "recover": {"epochs": 1, "lr": 0.01, "reconstruct": False},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}
SAME = ("tried.json", "run.json", "plan.json", "model/model.safetensors")


class Broken(Exception):
    pass


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(RECIPE, tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def whole(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[Event]]:
    out, events, seen = tmp_path_factory.mktemp("runs") / "whole", [], []
    limited = Labelled._limited

    def watched(self: Any, split: str, *arguments: Any) -> Any:
        if split == "certification":
            seen.append(events[-1].step)
        return limited(self, split, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Labelled, "_limited", watched)
        metrics = shape(recipe, out, trust=True, listen=events.append)
    assert set(seen) <= {"measure", "save", "stability", "explain"}  # when all is decided
    return out, metrics, events


def test_what_was_tried_is_told(whole: tuple[Path, dict[str, Any], list[Event]]) -> None:
    out, metrics, events = whole
    tried = json.loads((out / "tried.json").read_text())
    names = [one["name"] for one in tried["candidates"]]
    kinds = ["obs", "obs-adjust", "taylor", "obs-stream-whole", "obs-adjust", "obs-drop-1", "obs-adjust"]
    assert [name.rstrip("0123456789").rstrip("-") if "adjust" in name else name for name in names] == kinds
    assert len(set(names)) == len(names)
    by_name = {one["name"]: one for one in tried["candidates"]}
    assert "cannot be met" in by_name["obs-stream-whole"]["dropped"]
    assert all(0.3 < one["macs_ratio"] <= 0.5 for name, one in by_name.items() if one["scores"])
    trained = [name for name, one in by_name.items() if len(one["scores"]) == 2]
    assert len(trained) == 2
    untrained = {name: one["scores"][0] for name, one in by_name.items() if one["scores"]}
    order = sorted(untrained, key=lambda name: (-untrained[name]["accuracy"], untrained[name]["loss"]))
    assert set(trained) == set(order[:2])
    assert [one["name"] for one in tried["losses"]] == ["kl", "dist", "dkd"]
    assert sum(one["chosen"] for one in tried["candidates"]) == 1
    assert tried["reference"]["accuracy"] > 0.5
    assert "seconds" not in tried
    assert metrics["tried"]["seconds"]["obs.0"] > 0
    told = [event.text for event in events if event.kind == "note" and event.step == "choose"]
    assert told == tried["why"]


def test_the_steps_behind_do_what_was_chosen(whole: tuple[Path, dict[str, Any], list[Event]]) -> None:
    out, metrics, _ = whole
    chosen = figures(out)["choose"]["chosen"]
    assert figures(out)["trim"]["asked"] == chosen["trim"]["blocks"]
    assert len(figures(out)["trim"]["dropped"]) == chosen["trim"]["blocks"]
    losses = json.loads((out / "tried.json").read_text())["losses"]
    loss = next(one["name"] for one in losses if one["chosen"])
    assert figures(out)["recover"]["chosen"]["loss"] == loss
    rows = {row["name"]: row for row in metrics["rows"]}
    assert rows["slim"]["macs"] <= 0.5 * rows["transferred"]["macs"]
    assert "criterion: auto" in (out / "recipe.yaml").read_text()
    assert not (out / ".cache").exists()


def test_a_run_broken_off_at_any_try_ends_with_the_same_choice(
    recipe: Recipe, whole: tuple[Path, dict[str, Any], list[Event]], tmp_path: Path
) -> None:
    begun = [e.stage for e in whole[2] if e.kind == "progress" and e.step == "choose"]
    places, tried = [begun[0], begun[2], begun[-2], begun[-1]], []

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.step == "choose":
            tried.append(event.stage)
            if places and event.stage == places[0]:
                places.pop(0)
                raise Broken

    for broken in range(4):
        with pytest.raises(Broken):
            shape(recipe, tmp_path / "run", trust=True, listen=listen, resume=broken > 0)
    shape(recipe, tmp_path / "run", trust=True, listen=listen, resume=True)
    assert sorted(tried) == sorted([*begun, begun[0], begun[2], begun[-2], begun[-1]])
    for name in SAME:
        assert (tmp_path / "run" / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_a_run_that_is_killed_amid_the_tries_ends_with_the_same_choice(
    recipe: Recipe, whole: tuple[Path, dict[str, Any], list[Event]], tmp_path: Path
) -> None:
    out, file = tmp_path / "run", tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    command = (
        sys.executable,
        "-m",
        "penjing",
        "shape",
        file,
        "--model",
        recipe.model,
        "--out",
        out,
        "--quiet",
    )
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)
    deadline, stored = time.monotonic() + 300, out / ".cache" / "choose"
    while not (stored / "taylor.0.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ledger = json.loads((out / "run.json").read_text())
    assert {one["name"]: one["state"] for one in ledger["steps"]}["choose"] == "pending"
    begun: list[str] = []
    shape(
        recipe,
        out,
        trust=True,
        resume=True,
        listen=lambda event: begun.append(event.stage) if event.step == "choose" and event.stage else None,
    )
    assert "obs.0" not in begun
    assert "taylor.0" not in begun
    for name in SAME:
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes(), name


def test_the_time_limit_is_kept_and_what_it_left_out_is_said(recipe: Recipe, tmp_path: Path) -> None:
    steps = {**RECIPE["steps"], "choose": {**RECIPE["steps"]["choose"], "seconds": 1e-3}}
    events: list[Event] = []
    asked = Recipe.of({**RECIPE, "model": recipe.model, "steps": steps})
    shape(asked, tmp_path / "run", trust=True, listen=events.append)
    tried = json.loads((tmp_path / "run" / "tried.json").read_text())
    assert [len(one["scores"]) for one in tried["candidates"]] == [1] + [0] * 6
    assert tried["candidates"][0]["chosen"]
    assert {one["dropped"] for one in tried["candidates"][1:]} == {"no time was left to try it"}
    said = [event.text for event in events if event.kind == "note" and event.step == "choose"]
    assert said[-1].startswith(
        "no time was left (steps.choose.seconds, or share) for: taylor, obs-stream-whole"
    )
    assert figures(tmp_path / "run")["recover"]["chosen"]["loss"] == "kl"


def test_the_prediction_holds_the_limit(recipe: Recipe, tmp_path: Path) -> None:
    assert dry_run(recipe, tmp_path / "run", trust=True)["choose"] == 1000
