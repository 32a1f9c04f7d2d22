"""The ranges that a search of options has where none or some are asked, and what a worker is refused."""

from pathlib import Path

import pytest

from penjing.core import Recipe, RunError
from penjing.pipeline import help_tune, steps_of
from penjing.pipeline._tune import _space
from penjing.report import trials, trials_lost

OWN = {"lr": 0.001, "weight": 2.0, "hidden": 0.0, "temperature": 4.0, "loss": "kl", "weight_decay": 0.0}
BASE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


def test_ranges_lie_around_the_own_values_in_use():
    assert _space(None, OWN) == {
        "lr": [pytest.approx(1e-4), pytest.approx(1e-2)],
        "weight": [pytest.approx(0.2), pytest.approx(20.0)],
        "temperature": [1.0, 16.0],
    }
    assert list(_space(None, OWN | {"weight": 0.0, "hidden": 3.0})) == ["lr", "hidden"]


def test_every_range_holds_the_own_value():
    asked = {"lr": (0.01, 0.1), "loss": ("dist", "kl"), "weight_decay": (0.01, 0.1)}
    assert _space(asked, OWN) == {"lr": [0.001, 0.1], "loss": ["kl", "dist"], "weight_decay": [0.0, 0.1]}


def test_the_step_comes_before_the_last_recovery():
    steps = {"prune": {"rounds": 2}, "tune": {"trials": 2}}
    found = [step.name for step in steps_of(Recipe.of(BASE | {"steps": steps}))]
    assert found[found.index("prune:1") : found.index("recover") + 1] == [
        *("prune:1", "recover:1", "prune", "tune", "recover")
    ]
    named = {step.name: step for step in steps_of(Recipe.of(BASE | {"steps": steps}))}
    assert named["tune"].reads("steps.tune.trials")
    assert named["control:scratch"].reads("steps.tune.trials")
    assert not named["prune"].reads("steps.tune.trials")


def test_a_worker_needs_a_run(tmp_path: Path):
    with pytest.raises(RunError, match="holds no run"):
        help_tune(tmp_path)


def test_the_table_marks_the_chosen_trial_and_counts_the_lost():
    row = {"params": {"lr": 0.01}, "loss": 0.5, "seconds": 2.0, "state": "finished", "own": False}
    lost = {"value": None, "loss": None, "seconds": None, "state": "lost"}
    rows = [
        row | {"number": 0, "params": {"lr": 0.001}, "value": 0.5, "loss": 1.0, "own": True},
        row | {"number": 1} | lost,
        row | {"number": 2, "value": 0.75},
    ]
    tuned = {
        "space": {"lr": []},
        "metric": "accuracy",
        "split": "selection",
        "epochs": 4,
        "why": "so",
        "chosen": 2,
        "trials": rows,
    }
    told = trials(tuned).plain().splitlines()
    assert told[0] == "tuned on the selection split, 4 epochs a trial: so"
    assert told[1].split() == ["trial", "lr", "accuracy", "loss", "seconds", "state"]
    assert told[3].split()[:5] == ["0", "0.001", "0.5", "1", "2"]
    assert told[4].endswith("finished <-")
    assert trials_lost(tuned) == ("1 trial was lost with its worker",)
