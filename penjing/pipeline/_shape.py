"""The main job: steps in order, each done once, each either recorded or not there."""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from penjing.core import Recipe, RunError
from penjing.pipeline._choose import STEP as CHOOSE
from penjing.pipeline._choose import forget, with_choice
from penjing.pipeline._deliver import foresee
from penjing.pipeline._events import Event, Listener, silent
from penjing.pipeline._facts import facts
from penjing.pipeline._files import check_place, writable
from penjing.pipeline._job import Inputs, Job
from penjing.pipeline._lock import lock
from penjing.pipeline._predict import predict
from penjing.pipeline._rehearse import rehearse
from penjing.pipeline._report import read_metrics, write_report
from penjing.pipeline._run import (
    CACHE,
    RunFolder,
    changed,
    create,
    differences,
    occupant,
    read_ledger,
    reopen,
    resume_command,
)
from penjing.pipeline._settle import chooses, open_options, settled
from penjing.pipeline._shrink import check_budget
from penjing.pipeline._stability import STEP as STABILITY
from penjing.pipeline._stability import check_other_data
from penjing.pipeline._steps import Step, steps_of
from penjing.pipeline._taught import checkpoints
from penjing.pipeline._together import follow, joined, leads, let_go, shared
from penjing.recover import alone


def shape(
    recipe: Recipe, out: str | Path, *, resume: bool = False, trust: bool = False, listen: Listener = silent
) -> dict[str, Any]:
    """Runs `recipe` in the folder `out` and returns the content of its metrics.json, with that of its certificate.json
    as "certificate" where there is one.

    A folder with the finished run of the same recipe is answered from its files. `resume` goes on after the
    last finished step, inside training after the last epoch; its recipe may differ in what no finished step
    read. `trust` admits `file:` and `hub:` sources. Under torchrun several processes train together (`_together`): the
    first returns the content, the others {}.
    Raises `RunError` for a folder that is in use, foreign or harmed, and what the steps raise; every finished
    step is kept.
    """
    with joined(recipe):
        if not leads():
            follow(recipe, Path(out), trust=trust)
            return {}
        metrics = _lead(recipe, Path(out), resume=resume, trust=trust, listen=listen)
        let_go()
    return metrics


def _lead(recipe: Recipe, path: Path, *, resume: bool, trust: bool, listen: Listener) -> dict[str, Any]:
    steps = steps_of(recipe)
    check_budget(recipe)
    with writable(path):
        _welcome(path, recipe, resume)
        path.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with writable(path):
            held.enter_context(lock(path))
            run = _open(path, recipe, steps, resume)
        inputs = Inputs(recipe=settled(recipe), trust=trust)
        run.recognise(facts(inputs, run.steps_done))
        _adopt(run, recipe, steps)
        if run.finished:
            listen(Event(kind="note", text=f"{path} holds this run, finished: its stored figures follow"))
        else:
            with _ledger_state(run), torch.random.fork_rng():
                job = Job(run=run, inputs=inputs, listen=listen)
                with alone():
                    rehearse(inputs, deeper=_may_go_deeper(recipe))
                    if not run.done(STABILITY):
                        check_other_data(inputs)
                    foresee(job)
                    _announce(job)
                for step in steps:
                    _perform(with_choice(job), step)
                shutil.rmtree(path / CACHE, ignore_errors=True)
        metrics = read_metrics(path)
        write_report(path)
    for text in metrics.get("notes", ()):
        listen(Event(kind="note", text=text))
    return metrics


def dry_run(
    recipe: Recipe, out: str | Path, *, resume: bool = False, trust: bool = False
) -> dict[str, float]:
    """Predicted seconds of every step, after all the checks that `shape` begins with; writes nothing."""
    path, inputs = Path(out), Inputs(recipe=settled(recipe), trust=trust)
    check_budget(recipe)
    with writable(path):
        found = _welcome(path, recipe, resume)
        check_place(path)
    if found:
        run = reopen(path, found)
        run.recognise(facts(inputs, run.steps_done))
    rehearse(inputs, deeper=_may_go_deeper(recipe))
    check_other_data(inputs)
    return predict(recipe, inputs=inputs)


def _may_go_deeper(recipe: Recipe) -> bool:
    """Whether blocks may be dropped, or components adjusted, that the recipe leaves open."""
    return bool(open_options(recipe) & {"trim.blocks", "adjust.edits"}) and chooses(recipe)


def _open(path: Path, recipe: Recipe, steps: tuple[Step, ...], resume: bool) -> RunFolder:
    found = _welcome(path, recipe, resume)
    return reopen(path, found) if found else create(path, recipe, tuple(step.name for step in steps))


def _welcome(path: Path, recipe: Recipe, resume: bool) -> Recipe | None:
    """The recipe of the run in `path` that may go on as `recipe`, None where it is free; else a refusal."""
    found = occupant(path)
    if found is None:
        return None
    ledger = read_ledger(path)
    if found != recipe:
        done = tuple(record["name"] for record in ledger["steps"] if record["state"] == "finished")
        _check_change(path, found, recipe, done, resume)
    if not resume and ledger["state"] != "finished":
        raise RunError(
            f"{path} holds this run, unfinished. "
            f"Add --resume to go on with it: {resume_command(recipe, path)}"
        )
    return found


def _check_change(path: Path, found: Recipe, recipe: Recipe, done: tuple[str, ...], resume: bool) -> None:
    """Raises `RunError` unless the recipes differ only in what no finished step has read."""
    told = differences(recipe, found)
    if not resume:
        raise RunError(
            f"{path} holds another run: {told}. Choose another folder with --out, "
            "or give the options of that run to resume it."
        )
    keys, steps = changed(recipe, found), steps_of(recipe)
    spent = [step.name for step in steps_of(found) if step.name in done and any(map(step.reads, keys))]
    if not spent and tuple(step.name for step in steps[: len(done)]) != done:
        spent = [name for name in done if name not in [step.name for step in steps[: len(done)]]]
    if spent:
        raise RunError(
            f"{path} cannot go on with other options for steps that have finished ({', '.join(spent)}): {told}. "
            "Choose another folder with --out, or give the options of that run."
        )


def _adopt(run: RunFolder, recipe: Recipe, steps: tuple[Step, ...]) -> None:
    """Records another recipe; training under way goes on only where its options are the same."""
    if recipe != run.recipe:
        keys, following = changed(recipe, run.recipe), steps[len(run.steps_done) :]
        stored = [record["name"] for record in run.ledger["steps"]][len(run.steps_done) :]
        same = bool(following and stored) and following[0].name == stored[0]
        if not same or any(map(following[0].reads, keys)):
            shutil.rmtree(run.path / ".checkpoint", ignore_errors=True)
    run.adopt(recipe, tuple(step.name for step in steps))


@contextmanager
def _ledger_state(run: RunFolder) -> Iterator[None]:
    try:
        run.set_state("running")
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # no space even for the ledger: the last one written stands
            run.set_state("stopped")
        raise
    run.set_state("finished")


def _announce(job: Job) -> None:
    """Predicted seconds per step, where somebody listens."""
    if job.listen is not silent:
        job.listen(Event(kind="plan", figures=predict(job.run.recipe, inputs=job.inputs)))


def _perform(job: Job, step: Step) -> None:
    left_over = checkpoints(job, step.name)
    if job.run.done(step.name):
        left_over.clear()
        job.listen(Event(kind="skip", step=step.name, figures=job.run.record(step.name)["figures"]))
        return
    job.listen(Event(kind="start", step=step.name))
    with shared(step.name), job.run.step(step.name) as (out, figures):
        torch.manual_seed(
            job.run.record(step.name)["seed"]
        )  # here, for the first message to others draws numbers
        step.run(job, out, figures)
    left_over.clear()
    if step.name == CHOOSE:
        forget(job.run.path)
    job.listen(Event(kind="finish", step=step.name, figures=figures))
