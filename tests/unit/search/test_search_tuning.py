"""Studies of options: what wins, what is stopped, what a torn journal and a missing Optuna do."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from penjing.core import TrainingError, UsageError
from penjing.search import Range, Tried, Tuning, begin, choose, open_study, tried, work

TUNING = Tuning(space={"lr": Range(low=1e-4, high=1.0)}, own={"lr": 1e-3}, trials=5)


def _row(number: int, value: float, loss: float, **more: object) -> Tried:
    return replace(
        Tried(number=number, params={"lr": float(number)}, state="finished", value=value, loss=loss), **more
    )


def test_another_trial_wins_only_where_it_is_better():
    own = _row(0, 0.9, 0.5, own=True)
    assert choose([own, _row(1, 0.9, 0.5)], larger=True)[0] == own
    assert choose([own, _row(1, 0.9, 0.4)], larger=True)[0] == _row(1, 0.9, 0.4)
    assert choose([own, _row(1, 0.8, 0.1)], larger=False)[0] == _row(1, 0.8, 0.1)
    assert choose([own, _row(1, 0.99, 0.1, state="stopped early")], larger=True)[0] == own
    assert choose([_row(1, 0.99, 0.1)], larger=True)[0] is None


def test_the_own_values_are_tried_first_and_to_the_end(tmp_path: Path):
    """The own values are the worst of all here, so that a pruner would stop them."""
    seen = []

    def objective(options, report):
        seen.append(options["lr"])
        for epoch in (1, 2, 3, 4):
            report(epoch, math.log10(options["lr"]) + 4 if options["lr"] != 1e-3 else -9.0)
        return options["lr"], 0.0

    study = open_study(tmp_path / "journal.log", "one", TUNING)
    work(study, TUNING, objective)
    trials = tried(study)
    assert seen[0] == 1e-3
    assert trials[0].own
    assert trials[0].state == "finished"
    assert len(trials) == 5
    assert {trial.state for trial in trials} <= {"finished", "stopped early"}
    again = open_study(tmp_path / "journal.log", "one", TUNING)
    work(again, TUNING, objective)
    assert len(seen) == 5  # nothing was left to try
    assert tried(again) == trials


def test_equal_studies_try_equal_options(tmp_path: Path):
    found = []
    for name in ("a", "b"):
        study = open_study(tmp_path / name, "one", TUNING)
        work(study, TUNING, lambda options, report: (options["lr"], 0.0))
        found.append([trial.params for trial in tried(study)])
    assert found[0] == found[1]
    assert len({options["lr"] for options in found[0]}) == 5


def test_a_training_that_leaves_the_numbers_is_an_answer(tmp_path: Path):
    def objective(options, report):
        if options["lr"] != 1e-3:
            raise TrainingError("The loss of recover became nan at epoch 1. Use a smaller lr.")
        return 0.5, 1.0

    study = open_study(tmp_path / "journal.log", "one", TUNING)
    work(study, TUNING, objective)
    assert [trial.state for trial in tried(study)] == ["finished", *["stopped early"] * 4]
    assert tried(study)[1].why == "The loss of recover became nan at epoch 1"


def test_a_trial_that_others_gave_up_is_tried_again_and_its_late_answer_is_dropped(tmp_path: Path):
    """The first trial's worker counts as lost while it works: another takes its options over."""
    study, other = (open_study(tmp_path / "journal.log", "one", TUNING) for _ in range(2))
    begin(study, TUNING)
    calls = []

    def late(options, report):
        calls.append(options["lr"])
        if len(calls) == 1:
            other.tell(0, state=__import__("optuna").trial.TrialState.FAIL)
        return 0.25, 0.0

    work(study, replace(TUNING, trials=2), late)
    trials = tried(study)
    assert calls[:2] == [1e-3, 1e-3]
    assert [(trial.state, trial.own) for trial in trials[:2]] == [("lost", True), ("finished", True)]


def test_seconds_end_a_study(tmp_path: Path):
    tuning = replace(TUNING, trials=0, seconds=1e-9)
    study = open_study(tmp_path / "journal.log", "one", tuning)
    work(study, tuning, lambda options, report: (0.5, 0.0))
    assert len(tried(study)) == 1


def test_an_interrupt_gives_the_trial_back(tmp_path: Path):
    study = open_study(tmp_path / "journal.log", "one", TUNING)

    def broken(options, report):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(study, TUNING, broken)
    assert [(trial.state, trial.why) for trial in tried(study)] == [
        ("lost", "interrupted: KeyboardInterrupt")
    ]
    work(study, replace(TUNING, trials=1), lambda options, report: (0.5, 0.0))
    assert (tried(study)[1].own, tried(study)[1].retry_of, tried(study)[1].state) == (True, 0, "finished")


def test_a_torn_line_at_the_journals_end_is_cut_off(tmp_path: Path):
    path = tmp_path / "journal.log"
    work(open_study(path, "one", TUNING), replace(TUNING, trials=1), lambda options, report: (0.5, 0.0))
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":4,"worker')
    study = open_study(path, "one", TUNING)
    work(study, replace(TUNING, trials=2), lambda options, report: (0.6, 0.0))
    assert [trial.state for trial in tried(study)] == ["finished", "finished"]
    assert path.read_bytes().startswith(whole)


def test_without_optuna_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'penjing\[search\]'"):
        open_study(tmp_path / "journal.log", "one", TUNING)


def test_a_storage_out_of_reach_is_told_without_its_password(tmp_path: Path):
    with pytest.raises(UsageError, match=r"steps\.tune\.storage") as told:
        open_study("nonsense://me:secret@host/db", "one", TUNING)
    assert "secret" not in str(told.value)
