"""What every training of a run has in common: options, seed, progress, epoch checkpoints, curves, what is kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from penjing.core import DistilOptions
from penjing.pipeline._checkpoint import Checkpoints
from penjing.pipeline._job import Job, event_log, write_state
from penjing.pipeline._rebuilt import finite
from penjing.pipeline._run import CACHE
from penjing.recover import Fit, TeacherCache, TrainState, processes, rank, transfer, wait_for_all
from penjing.report import EventLog
from penjing.sources import LoadedSource, find_head


def checkpoints(job: Job, step: str) -> Checkpoints:
    return Checkpoints(folder=job.run.path / ".checkpoint", step=step.replace(":", "-"))


def transferred(job: Job, step: str, source: LoadedSource) -> Fit:
    """A head that is kept needs no probe: on a frozen body it would move away from what it was trained for."""
    options = job.recipe.steps.transfer.model_dump()
    options |= {"probe_epochs": 0} if source.kept_head else {}
    task = job.inputs.task(options.pop("label_smoothing"))
    with listening(job, step, job.run.record(step)["seed"]) as hooks:
        return transfer(source.model, task, job.inputs.data, head=find_head(source.model), **options, **hooks)


def distillation(job: Job, step: str, asked: DistilOptions) -> dict[str, Any]:
    """The options of a distillation, the run's teacher cache where it is asked for, and who hears what it chose."""
    options = asked.model_dump(exclude={"reconstruct", "reconstruct_examples"})
    limit = int(options.pop("cache_mb") * 1e6)
    cache = TeacherCache(folder=job.run.path / CACHE, limit=limit) if limit and processes() == 1 else None
    return {**options, "cache": cache, "say": partial(job.note, step)}


@contextmanager
def listening(job: Job, step: str, seed: int) -> Iterator[dict[str, Any]]:
    """What every training gets: seed, batch, progress, epoch checkpoints, curves."""
    stored = checkpoints(job, step)
    resume = stored.load()
    wait_for_all()
    if rank():  # the first process keeps and tells
        yield {"augment": True, "seed": seed, "resume": resume}
        return
    with _curves(job, step, resume) as draw:

        def keep(state: TrainState) -> None:
            stored.save(state)
            draw(state)

        yield {
            "augment": True,
            "seed": seed,
            "progress": job.progress(step),
            "checkpoint": keep,
            "resume": resume,
        }


@contextmanager
def _curves(job: Job, step: str, resume: TrainState | None) -> Iterator[Callable[[TrainState], None]]:
    """A function that draws a state's last epoch; one set of curves for each stage of the step."""
    logs: dict[str, EventLog | None] = {}

    def draw(state: TrainState) -> None:
        if state.stage not in logs:
            going_on = resume is not None and resume.stage == state.stage
            name = f"{step}-probe" if state.stage == "probe" else step
            logs[state.stage] = event_log(job, name, first=state.epoch if going_on else 0)
        log = logs[state.stage]
        if log is not None:
            log.epoch(state.epoch, state.history[-1])

    try:
        yield draw
    finally:
        for log in logs.values():
            if log is not None:
                log.close()


def finish(job: Job, step: str, fit: Fit, out: Path, figures: dict[str, Any]) -> None:
    write_state(fit.model, out, step)
    figures["best_epoch"] = fit.best_epoch
    figures["before"] = finite(fit.start)
    figures["epochs"] = [finite(row) for row in fit.history]
    if fit.chosen:
        figures |= {"chosen": dict(fit.chosen), "notes": list(fit.notes)}
