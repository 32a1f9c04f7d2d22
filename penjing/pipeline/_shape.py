"""The main job: steps in order, each done once, each either recorded or not there."""

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from penjing.core import Recipe, RunError, UsageError
from penjing.pipeline._events import Event, Listener, silent
from penjing.pipeline._files import read_json
from penjing.pipeline._job import Inputs, Job
from penjing.pipeline._learn import checkpoints
from penjing.pipeline._lock import lock
from penjing.pipeline._predict import predict
from penjing.pipeline._run import RunFolder, create, differences, occupant, reopen
from penjing.pipeline._shrink import check_budget
from penjing.pipeline._steps import Step, steps_of


def shape(
    recipe: Recipe, out: str | Path, *, resume: bool = False, trust: bool = False, listen: Listener = silent
) -> dict[str, Any]:
    """Runs `recipe` in the folder `out` and returns the content of its metrics.json.

    A folder with the finished run of the same recipe is answered from its files. `resume` goes on after the
    last finished step, inside training after the last epoch. `trust` admits `file:` and `hub:` sources.
    Raises `RunError` for a folder that is in use, foreign or harmed, and what the steps raise; every finished
    step is kept.
    """
    path = Path(out)
    check_budget(recipe)
    _check_device(recipe)
    _welcome(path, recipe, resume)
    path.mkdir(parents=True, exist_ok=True)
    with lock(path):
        found = _welcome(path, recipe, resume)
        steps = steps_of(recipe)
        run = reopen(path, recipe) if found else create(path, recipe, tuple(step.name for step in steps))
        if not run.finished:
            with _ledger_state(run), torch.random.fork_rng():
                job = Job(run=run, inputs=Inputs(recipe=recipe, trust=trust), listen=listen)
                _announce(job)
                for step in steps:
                    _perform(job, step)
        return read_json(path / "metrics.json")


def _welcome(path: Path, recipe: Recipe, resume: bool) -> bool:
    """True where `path` holds this very run, False where it is free; anything else is refused."""
    found = occupant(path)
    if found is None:
        return False
    if found != recipe:
        raise RunError(
            f"{path} holds another run: {differences(recipe, found)}. Choose another folder with --out, "
            f"or give the options of that run to resume it."
        )
    if not resume and read_json(path / "run.json")["state"] != "finished":
        raise RunError(f"{path} holds this run, unfinished. Add --resume to go on with it.")
    return True


@contextmanager
def _ledger_state(run: RunFolder) -> Iterator[None]:
    run.set_state("running")
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # no space even for the ledger: the last one written stands
            run.set_state("stopped")
        raise
    run.set_state("finished")


def _announce(job: Job) -> None:
    """Predicted seconds per step, where somebody listens."""
    if job.listen is not silent:
        job.listen(Event(kind="plan", figures=predict(job.recipe, inputs=job.inputs)))


def _perform(job: Job, step: Step) -> None:
    left_over = checkpoints(job, step.name)
    if job.run.done(step.name):
        left_over.clear()
        job.listen(Event(kind="skip", step=step.name, figures=job.run.record(step.name)["figures"]))
        return
    job.listen(Event(kind="start", step=step.name))
    torch.manual_seed(job.run.record(step.name)["seed"])
    with job.run.step(step.name) as (out, figures):
        step.run(job, out, figures)
    left_over.clear()
    job.listen(Event(kind="finish", step=step.name, figures=figures))


def _check_device(recipe: Recipe) -> None:
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: cuda is not available on this machine; use --device cpu.")
