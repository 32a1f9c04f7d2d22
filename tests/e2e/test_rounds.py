"""A budget below one half: prune and recover take turns, and a run that is broken off anywhere ends the same."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_runs import figures, tiny_recipe

from penjing.core import Recipe
from penjing.pipeline import Event, shape

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.35x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 1, "lr": 0.01},
        "prune": {
            "criterion": "obs",
            "scope": "global",
            "round_to": 1,
            "calibration": 128,
            "rounds": 3,
            "between": 2,
        },
        "recover": {"epochs": 2, "lr": 0.01, "ema": 0.9, "hidden": 0.0, "cache_mb": 1},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}
SAME = (
    "run.json",
    "plan.json",
    "model/model.safetensors",
    "steps/prune-1.plan.json",
    "steps/recover-2.safetensors",
)


class Broken(Exception):
    pass


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(RECIPE, tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out, events = tmp_path_factory.mktemp("runs") / "whole", []
    shape(recipe, out, trust=True, listen=events.append)
    return out, events


def test_each_round_has_its_figures(whole: tuple[Path, list[Event]]):
    found = figures(whole[0])
    told = [event.text for event in whole[1] if event.kind == "note" and event.step == "prune:1"]
    assert told == ["the budget is met in 3 rounds (steps.prune.rounds), with recovery between"]
    full = found["prune"]["before"]["macs"]
    shares = [found[name]["after"]["macs"] / full for name in ("prune:1", "prune:2", "prune")]
    assert shares[0] > shares[1] > shares[2]
    assert 0.6 < shares[0] <= 0.71
    assert shares[2] <= 0.35
    assert [len(found[name]["epochs"]) for name in ("recover:1", "recover:2", "recover")] == [2, 2, 2]
    assert len(found["control:scratch"]["epochs"]) == 6


def test_what_auto_became_is_told_and_kept(whole: tuple[Path, list[Event]]):
    out, events = whole
    kept = figures(out)["recover"]
    assert kept["chosen"] == {"loss": "kl", "temperature": 2.0, "weight": 1.0, "hidden": 0.0}
    assert "the student was cut from the teacher" in kept["notes"][0]
    told = [event.text for event in events if event.kind == "note" and event.step == "recover"]
    assert kept["notes"][0] in told
    assert any("teacher cache: " in text for text in told)
    assert "loss: auto" in (out / "recipe.yaml").read_text()
    assert not (out / ".cache").exists()


def test_a_run_that_is_broken_off_again_and_again_ends_the_same(
    recipe: Recipe, whole: tuple[Path, list[Event]], tmp_path: Path
):
    out, places = tmp_path / "broken", ["prune:1", "recover:1", "prune:2", "recover:2", "prune", "recover"]

    def listen(event: Event) -> None:
        stop = "start" if places and places[0].startswith("prune") else "progress"
        late = stop == "start" or event.figures.get("epoch") == 2
        if places and event.step == places[0] and event.kind == stop and late:
            places.pop(0)
            raise Broken

    for broken in range(6):
        with pytest.raises(Broken):
            shape(recipe, out, trust=True, listen=listen, resume=broken > 0)
    shape(recipe, out, trust=True, listen=listen, resume=True)
    assert places == []
    for name in SAME:
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes(), name


def killed_in(step: str, file: Path, recipe: Recipe, out: Path) -> None:
    """Runs in a process of its own until `step` has stored a training state, then kills it without mercy."""
    options = (
        "shape",
        file,
        "--model",
        recipe.model,
        "--out",
        out,
        "--quiet",
        *(["--resume"] if out.exists() else []),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "penjing", *map(str, options)], stderr=subprocess.PIPE, text=True
    )
    deadline, stored = time.monotonic() + 300, out / ".checkpoint"
    while not any(stored.glob(f"{step.replace(':', '-')}.*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    ledger = json.loads((out / "run.json").read_text())
    states = {record["name"]: record["state"] for record in ledger["steps"]}
    assert states[step.replace("recover", "prune")] == "finished"
    assert states[step] == "pending"


def test_a_run_that_is_killed_amid_recovery_between_rounds_ends_the_same(
    recipe: Recipe, whole: tuple[Path, list[Event]], tmp_path: Path
):
    out, file = tmp_path / "killed", tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    for step in ("recover:1", "recover:2"):
        killed_in(step, file, recipe, out)
    shape(recipe, out, trust=True, resume=True)
    assert figures(out)["recover:2"]["reconstruct"]["towards"] == "recover:1"
    for name in SAME:
        assert (out / name).read_bytes() == (whole[0] / name).read_bytes(), name
