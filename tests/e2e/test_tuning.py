"""The step tune: what it finds is used, and workers that die take no finished trial with them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import figures, tiny_recipe

from penjing.core import Recipe
from penjing.pipeline import Event, help_tune, shape
from penjing.search import Range, Tuning, begin, open_study, tried

RECIPE = {
    "task": "image-classification",
    "data": {"source": "builtin:digits", "splits": [256, 100, 100]},
    "budget": "macs<=0.5x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
        "prune": {"criterion": "obs", "scope": "global", "round_to": 1, "calibration": 64},
        "recover": {"epochs": 2, "lr": 1e-6, "reconstruct": False, "bn_examples": 0},
        "tune": {"trials": 3, "share": 0.5, "space": {"lr": [1e-3, 1e-2], "temperature": [1, 4]}},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [4]},
    },
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(RECIPE, tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    out, events = tmp_path_factory.mktemp("runs") / "tuned", []
    shape(recipe, out, trust=True, listen=events.append)
    return out, events


def test_a_rate_that_learns_nothing_is_replaced_and_used(run: tuple[Path, list[Event]]):
    out, events = run
    told, found = json.loads((out / "tune" / "tried.json").read_text()), figures(out)
    own, best = told["trials"][0], told["trials"][told["chosen"]]
    assert own["own"]
    assert own["params"] == {"lr": 1e-6, "temperature": 2.0}
    assert own["state"] == "finished"
    assert best["value"] > own["value"]
    assert best["params"]["lr"] >= 1e-6
    assert best["state"] == "finished"
    assert told["split"] == "selection"
    assert len([row for row in told["trials"] if row["state"] in ("finished", "stopped early")]) == 3
    assert found["tune"]["chosen"] == best["params"]
    assert found["recover"]["chosen"]["temperature"] == best["params"]["temperature"]
    assert max(row["lr"] for row in found["recover"]["epochs"]) <= best["params"]["lr"]
    assert any(event.step == "tune" and "with the recipe's own values" in event.text for event in events)
    assert json.loads((out / "metrics.json").read_text())["tuned"] == told


def test_a_search_that_its_run_left_is_finished_by_a_worker_and_taken_over(recipe: Recipe, tmp_path: Path):
    """The run is left after its first trial; a worker tries the rest, and the resumed run tries nothing again."""

    class Left(Exception):
        pass

    def leave(event: Event) -> None:
        if event.step == "tune" and event.kind == "progress" and event.done == 1 and event.stage == "trials":
            raise Left

    with pytest.raises(Left):
        shape(recipe, tmp_path / "run", trust=True, listen=leave)
    journal = tmp_path / "run" / "tune" / "journal.log"
    before = journal.read_bytes()
    help_tune(tmp_path / "run", model=recipe.model, trust=True)
    done = journal.read_bytes()
    assert done.startswith(before)
    shape(recipe, tmp_path / "run", trust=True, resume=True)
    assert journal.read_bytes().count(b'"state"') == done.count(b'"state"')
    told = json.loads((tmp_path / "run" / "tune" / "tried.json").read_text())
    assert [row["own"] for row in told["trials"]] == [True, False, False]


WORKER = """
import sys, time
from pathlib import Path
from penjing.search import Range, Tuning, open_study, work
folder, slow = Path(sys.argv[1]), sys.argv[2] == "slow"
tuning = Tuning(space={"lr": Range(low=1e-4, high=1e-1)}, own={"lr": 1e-3}, trials=6)

def objective(options, report):
    report(1, options["lr"])
    if slow:
        (folder / "deep-in-a-trial").touch()
        time.sleep(60)
    return options["lr"], 0.0

study = open_study(folder / "journal.log", "tiny", tuning)
while not (slow or (folder / "deep-in-a-trial").exists()):
    time.sleep(0.01)
work(study, tuning, objective)
"""


def _until(found: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not found():
        assert process.poll() is None, "the worker ended"
        time.sleep(0.01)


def test_killing_one_of_two_workers_loses_no_finished_trial(tmp_path: Path):
    """One worker is killed inside its trial, after the other has finished some: they stay, and the rest is done."""
    tuning = Tuning(space={"lr": Range(low=1e-4, high=1e-1)}, own={"lr": 1e-3}, trials=6)
    study = open_study(tmp_path / "journal.log", "tiny", tuning)
    begin(study, tuning)
    pair = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), kind], env={**os.environ})
        for kind in ("slow", "fast")
    ]
    slow, fast = pair
    try:
        _until((tmp_path / "deep-in-a-trial").exists, slow)
        _until(lambda: any(trial.state == "finished" for trial in tried(study)), fast)
        finished = [trial for trial in tried(study) if trial.state == "finished"]
        [cut] = [trial for trial in tried(study) if trial.worker.endswith(f"/{slow.pid}")]
        slow.send_signal(signal.SIGKILL)
        slow.wait()
        assert fast.wait() == 0
    finally:
        for process in pair:
            process.kill()
            process.wait()
    trials = tried(study)
    assert [trials[trial.number] for trial in finished] == finished
    assert trials[cut.number].state == "lost"
    assert trials[cut.number].why == "its worker is gone"
    [again] = [trial for trial in trials if trial.retry_of == cut.number]
    assert again.params == cut.params
    assert again.state in ("finished", "stopped early")
    assert [trial.state in ("finished", "stopped early") for trial in trials].count(True) == 6
    assert [trial.state for trial in trials].count("running") == 0
