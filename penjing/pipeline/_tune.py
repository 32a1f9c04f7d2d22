"""The step tune: which options the recovery gets, by short recoveries of the pruned network on the selection split.

The study lies in the run's folder tune/ while the step goes on, outside what steps publish, so that other processes
and machines that see the folder can take part (`take_part`): study.json says what is searched, start.safetensors is
the network that every trial starts from, journal.log holds the trials.
"""

import copy
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import Plan, RunError
from penjing.pipeline._choose import with_choice
from penjing.pipeline._events import Event
from penjing.pipeline._files import read_json, read_sealed, sha256, write, write_json, write_sealed
from penjing.pipeline._job import Job, packed, plan_file, read_state, write_state
from penjing.pipeline._run import reopen
from penjing.recover import TrainState, recover, recovery_terms
from penjing.search import Range, Tried, Tuning, begin, choose, open_study, tried, work
from penjing.tasks import headline

STEP, FOLDER, POLL = "tune", "tune", 1.0
STUDY, START, JOURNAL, TRIED = "study.json", "start.safetensors", "journal.log", "tried.json"
TERMS = ("loss", "temperature", "weight", "hidden")


def tuned(job: Job) -> dict[str, Any]:
    """The recover options that the finished step tune chose; {} before it, and where the recipe's own stay."""
    if not job.recipe.steps.tune.on or not job.run.done(STEP):
        return {}
    return dict(job.run.record(STEP)["figures"]["chosen"])


def tune_step(
    job: Job, rebuild: Callable[[nn.Module, dict[str, Any]], None], out: Path, figures: dict[str, Any]
) -> None:
    """Searches, with whoever takes part, and keeps the network that trials started from: recovery starts there too."""
    folder = job.run.path / FOLDER
    if not (folder / STUDY).exists() or read_sealed(folder / STUDY)["reads"] != _reads(job):
        model = job.slim("prune", "prune")
        rebuild(model, figures)
        _describe(job, model, folder, figures)
    about = read_sealed(folder / STUDY)
    found = _search(job, about)
    best, why = choose(found, larger=about["larger"])
    chosen = {} if best is None or best.own else dict(best.params)
    figures |= {"reconstruct": about["reconstruct"]} if about["reconstruct"] else {}
    figures |= {"chosen": chosen, "why": why, "own": about["own"], "trials": len(found)}
    job.note(STEP, f"{why}: {_said(chosen) or 'they stay'}")
    (out / FOLDER).mkdir(parents=True)
    write_json(out / FOLDER / TRIED, _told(about, found, best, why))
    write_state(_start(job), out, STEP)


def take_part(job: Job, *, wait: bool = True) -> None:
    """Tries options for a run that another process leads, until its study is complete; writes into the study alone.

    Raises RunError where the run has no such step, or (unless `wait`) has not come to it yet.
    """
    path = job.run.path
    if not job.recipe.steps.tune.on:
        raise RunError(f"{path} has no step tune. Fix: set steps.tune.trials in its recipe")
    if job.run.done(STEP):
        job.note(STEP, f"the step tune of {path} has finished: nothing is left to try")
        return
    if not (path / FOLDER / STUDY).exists():
        if not wait:
            raise RunError(f"{path} has not come to its step tune. Fix: start again then, or wait for it")
        job.note(STEP, f"waiting for {path} to come to its step tune")
    while not (path / FOLDER / STUDY).exists():
        time.sleep(POLL)
    job = with_choice(
        replace(job, run=reopen(path, job.run.recipe))
    )  # a method was chosen while this one waited
    _search(job, read_sealed(path / FOLDER / STUDY))


def trials_in(path: Path) -> dict[str, Any] | None:
    """What the run in `path` tried and chose, None where it tuned nothing."""
    file = path / FOLDER / TRIED
    return read_json(file) if file.exists() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """One short recovery: the same start, order and views each time, so that only the options differ."""

    job: Job
    about: Mapping[str, Any]
    start: nn.Module
    teacher: nn.Module
    plan: Plan

    def __call__(
        self, options: Mapping[str, Any], report: Callable[[int, float], None]
    ) -> tuple[float, float]:
        metric, given = self.about["metric"], recovery_options(self.job)

        def keep(state: TrainState) -> None:
            report(state.epoch, float(state.history[-1][f"selection_{metric}"]))

        fit = recover(
            copy.deepcopy(self.start),
            self.teacher,
            self.job.inputs.task(),
            self.job.inputs.data,
            **given | dict(options) | {"epochs": self.about["epochs"]},
            plan=self.plan,
            augment=True,
            seed=self.job.run.record("recover")["seed"],
            checkpoint=keep,
        )
        return float(fit.selection[metric]), float(fit.selection["loss"])


def recovery_options(job: Job) -> dict[str, Any]:
    """The recipe's options of `recover` without what belongs to the run."""
    return job.recipe.steps.recover.model_dump(exclude={"reconstruct", "reconstruct_examples", "cache_mb"})


def _describe(job: Job, model: nn.Module, folder: Path, figures: Mapping[str, Any]) -> None:
    """Writes what every worker needs; study.json comes last, and with it the study begins."""
    folder.mkdir(exist_ok=True)
    (folder / STUDY).unlink(missing_ok=True)
    write(folder / START, packed(model))
    options, recipe = job.recipe.steps.tune, job.recipe
    own = recovery_options(job)
    own |= recovery_terms(
        model,
        job.full(job.reference),
        job.inputs.task(),
        job.inputs.data,
        job.plan("prune"),
        {name: own[name] for name in TERMS},
        own["batch_size"],
    )
    metric, larger = headline(job.inputs.task())
    space = _space(options.space, own)
    about = {
        "reads": _reads(job),
        "start": sha256(folder / START),
        "space": space,
        "own": {name: own[name] for name in space},
        "epochs": max(1, round(options.share * recipe.steps.recover.epochs)),
        "metric": metric,
        "larger": larger,
        "seed": job.run.record(STEP)["seed"],
        "reconstruct": figures.get("reconstruct"),
    }
    write_sealed(folder / STUDY, about)
    begin(_open(job, about), _tuning(job, about))


def _space(asked: Mapping[str, Any] | None, own: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The ranges asked, each made to hold the recipe's own value; else a decade either way of the rate and of the
    weights that are in use, and the temperature within a factor of four.
    """
    if asked is None:
        named = [name for name in ("lr", "weight", "hidden") if own[name]]
        found: dict[str, list[Any]] = {name: [own[name] / 10, own[name] * 10] for name in named}
        if own["weight"]:
            found["temperature"] = [max(0.25, own["temperature"] / 4), own["temperature"] * 4]
        return found
    space: dict[str, list[Any]] = {}
    for name, among in asked.items():
        if isinstance(own[name], str):
            space[name] = [own[name], *(other for other in among if other not in (own[name], "auto"))]
        else:
            wide = Range(low=float(among[0]), high=float(among[1])).around(float(own[name]))
            space[name] = [wide.low, wide.high]
    return space


def _reads(job: Job) -> str:
    """What the trials depend on; the bounds of the search and its storage may change while it goes on."""
    recipe = job.recipe
    kept = recipe.steps.tune.model_dump(mode="json", exclude={"trials", "seconds", "storage", "stop_early"})
    plan = sha256(plan_file(job.run.path, "prune"))
    parts = (
        kept,
        recipe.steps.recover.model_dump(mode="json"),
        recipe.device,
        job.run.record(STEP)["seed"],
        plan,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _tuning(job: Job, about: Mapping[str, Any]) -> Tuning:
    options = job.recipe.steps.tune
    space = {
        name: Range(low=among[0], high=among[1]) if not isinstance(among[0], str) else tuple(among)
        for name, among in about["space"].items()
    }
    return Tuning(
        space=space,
        own=about["own"],
        trials=options.trials,
        seconds=options.seconds,
        larger=about["larger"],
        stop_early=options.stop_early,
        seed=about["seed"],
    )


def _open(job: Job, about: Mapping[str, Any]) -> Any:
    name = f"penjing-{about['reads'][:12]}-{about['start'][:12]}"
    where = job.recipe.steps.tune.storage or job.run.path / FOLDER / JOURNAL
    return open_study(where, name, _tuning(job, about))


def _search(job: Job, about: Mapping[str, Any]) -> tuple[Tried, ...]:
    """Takes part until the study is complete; all its trials."""
    study, start = _open(job, about), job.run.path / FOLDER / START
    if sha256(start) != about["start"]:
        raise RunError(
            f"{start} is torn or altered. Fix: delete the folder {start.parent} and resume the run"
        )
    trial = _Trial(
        job=job,
        about=about,
        start=_start(job),
        teacher=job.full(job.reference),
        plan=job.plan("prune"),
    )
    work(study, _tuning(job, about), trial, hear=partial(_hear, job))
    return tried(study)


def _start(job: Job) -> nn.Module:
    return read_state(job.blank_slim("prune"), job.run.path / FOLDER / START)


def _hear(job: Job, trials: tuple[Tried, ...]) -> None:
    ended = [trial for trial in trials if trial.state in ("finished", "stopped early")]
    values = [trial.value for trial in ended if trial.state == "finished" and trial.value is not None]
    total = max(job.recipe.steps.tune.trials, len(ended))
    figures = {"best": max(values)} if values else {}
    job.listen(
        Event(kind="progress", step=STEP, stage="trials", done=len(ended), total=total, figures=figures)
    )


def _told(about: Mapping[str, Any], found: tuple[Tried, ...], best: Tried | None, why: str) -> dict[str, Any]:
    rows = [
        {
            "number": trial.number,
            "params": dict(trial.params),
            "value": trial.value,
            "loss": trial.loss,
            "state": trial.state,
            "own": trial.own,
            "retry_of": trial.retry_of,
            "why": trial.why,
            "seconds": trial.seconds,
            "worker": trial.worker,
        }
        for trial in found
    ]
    chosen = None if best is None else best.number
    told = {name: about[name] for name in ("metric", "larger", "epochs", "space", "own")}
    return {**told, "split": "selection", "chosen": chosen, "why": why, "trials": rows}


def _said(chosen: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in chosen.items()
    )
