"""Studies: what a trial draws does not depend on which ones were lost before it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from penjing.core import RunError, UsageError
from penjing.search import Range, Tried, Tuning, check_storage, open_study, tried, work

pytest.importorskip("optuna")

SPACE = {"lr": Range(low=1e-4, high=1e-1), "weight": Range(low=0.0, high=4.0), "loss": ("kl", "dkd")}
OWN = {"lr": 1e-3, "weight": 1.0, "loss": "kl"}


class Killed(BaseException):
    """Leaves a study as a process does that is killed."""


def tuning(**options: Any) -> Tuning:
    return Tuning(space=SPACE, own=OWN, trials=8, **options)


def objective(options: Any, report: Any) -> tuple[float, float]:
    value = options["lr"] * (2 + options["weight"]) * (1.5 if options["loss"] == "dkd" else 1)
    for epoch in (1, 2, 4):
        report(epoch, value * epoch)
    return value, 0.0


def params(trials: tuple[Tried, ...]) -> list[Any]:
    kept = [trial for trial in trials if trial.state != "lost"]
    return [(dict(trial.params), trial.state, trial.value) for trial in kept]


def abandoned(study: Any, asked: Tuning, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works until trial `number` has reported its second epoch, and leaves it running as a kill would."""

    def until(options: Any, report: Any) -> tuple[float, float]:
        if len(tried(study)) > number:
            with suppress(Exception):
                report(1, objective(options, lambda *_: None)[0])
            raise Killed
        return objective(options, report)

    with monkeypatch.context() as inside:
        inside.setattr("penjing.search._workers._give_up", lambda *_, **__: None)
        inside.setattr("penjing.search._workers._here", lambda: {"machine": "here", "process": 1 << 30})
        with pytest.raises(Killed):
            work(study, asked, until)
    monkeypatch.setattr("penjing.search._workers._machine", lambda: "here")


@pytest.mark.parametrize("number", [0, 1, 4, 7])
@pytest.mark.parametrize("stop_early", [False, True])
def test_a_lost_trial_changes_none_that_follow(
    tmp_path: Path, number: int, stop_early: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tuning(stop_early=stop_early)
    whole = open_study(tmp_path / "whole.log", "one", asked)
    work(whole, asked, objective)
    cut = open_study(tmp_path / "cut.log", "one", asked)
    abandoned(cut, asked, number, monkeypatch)
    again = open_study(tmp_path / "cut.log", "one", asked)
    work(again, asked, objective)
    assert [trial.number for trial in tried(again) if trial.state == "lost"] == [number]
    assert params(tried(again)) == params(tried(whole))
    assert len(params(tried(whole))) == 8


def test_a_storage_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"steps\.tune\.storage: .*sqlite:////nowhere/at/all\.db"):
        check_storage("sqlite:////nowhere/at/all.db")
    with pytest.raises(UsageError, match=r"nosuch://HOST/x"):
        check_storage("nosuch://me:secret@HOST/x")
    check_storage(f"sqlite:///{tmp_path / 'study.db'}")


def test_a_damaged_journal_is_to_be_deleted(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    work(open_study(journal, "one", tuning()), tuning(), objective)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([lines[0], b"garbage\n", *lines[1:]]))
    with pytest.raises(RunError, match=r"journal\.log .*Fix: delete it and resume"):
        open_study(journal, "one", tuning())
    os.remove(journal)
    assert tried(open_study(journal, "one", tuning())) == ()
