"""The step that tries methods on the user's data, and takes the one that measured best."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.core import Recipe, UsageError
from penjing.pipeline._adjust import FILE, share_of
from penjing.pipeline._bench import Bench
from penjing.pipeline._candidates import candidates
from penjing.pipeline._contest import AUTO, Contest, asked
from penjing.pipeline._files import write_json
from penjing.pipeline._job import Job
from penjing.pipeline._pace import Pace, limit_of, pace_of
from penjing.pipeline._run import CACHE
from penjing.pipeline._settle import chooses, open_options, settled
from penjing.pipeline._tried import LATE, Losses, Outcome
from penjing.pipeline._tries import FOLDER, Tries
from penjing.search import Judge, SharedTables, Standing, halve
from penjing.structure import Structure, trace

STEP = "choose"
TIMES = ("seconds", "expected")
FEW_CLASSES = 5  # standardised answers of fewer say little
WALKING = 0.3  # of the time: what the search for adjustments may take
ONE_CLASS_EACH = ("image-classification", "text-classification", "audio-classification")


def choose_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Candidates are cut to the budget, the best are trained a little, and one is left; so with losses to recover by.

    Only the selection split is looked at.
    """
    contest = _contest(job)
    steps = job.recipe.steps.choose
    try:
        halved = halve(tuple(contest.field), contest.attempt, steps.keep, contest.judge, fits=contest.fits)
    except ValueError as error:
        contest.bench.cut(next(iter(contest.field.values())))  # raises what stands in the way of the first
        raise UsageError(f"no method could be tried: {error}") from None
    taken = contest.field[halved.chosen]
    if taken.edits:
        write_json(
            out / FILE,
            {k: v for k, v in contest.bench.adjustments(taken.blocks).record.items() if k not in TIMES},
        )
    found = Outcome(contest=contest, halved=halved, losses=_losses(contest, halved.chosen))
    write_json(out / "tried.json", found.to_dict())
    figures |= {"chosen": found.options(), "why": list(found.why()), "late": list(found.late())}
    job.run.volatile["tried"] = {"limit": contest.limit, "seconds": contest.seconds()}
    for text in found.why():
        job.note(STEP, text)
    if found.late():
        job.note(STEP, f"{LATE} (steps.choose.seconds, or share) for: {', '.join(found.late())}")


def with_choice(job: Job) -> Job:
    """`job` with what was chosen, once it is."""
    if not chooses(job.run.recipe) or not job.run.done(STEP):
        return job
    chosen = job.run.record(STEP)["figures"]["chosen"]
    return replace(job, inputs=job.inputs.settled(settled(job.run.recipe, chosen)))


def forget(run: Path) -> None:
    """Removes what only an unfinished step needs."""
    shutil.rmtree(run / CACHE / FOLDER, ignore_errors=True)


def _contest(job: Job) -> Contest:
    recipe, steps = job.run.recipe, job.recipe.steps
    whole = job.full(job.reference)
    structure = trace(whole, job.inputs.example(1))
    found = candidates(recipe, structure)
    tries = Tries.open(job.run.path / CACHE / FOLDER, _depends(job))
    bench = Bench(
        inputs=job.inputs,
        whole=whole,
        seed=job.run.record(STEP)["seed"],
        deepest=max(one.blocks for one in found),
        tables=SharedTables(
            recall=lambda name: tries.get(f"times-{name}"),
            keep=lambda name, timed: tries.put(f"times-{name}", timed),
        ),
        recall=tries.once,
        tell=job.progress(STEP),
    )
    frozen = tries.get("frozen") or tries.put("frozen", _frozen(job))
    if tries.get("reference") is None:
        tries.put("reference", asked(bench, whole))
    bench.seconds = WALKING * frozen["limit"]
    total = steps.recover.epochs * max(1, job.inputs.data.n("train") // steps.recover.batch_size)
    contest = Contest(
        bench=bench,
        tries=tries,
        field={one.name: one for one in found},
        pace=Pace(**frozen["pace"]),
        limit=frozen["limit"],
        steps=(0, *(max(1, round(share * total)) for share in steps.choose.rungs)),
        margin=None if recipe.margin is None else recipe.margin / 100,
        tell=job.progress(STEP),
    )
    return _with_adjustments(contest, recipe, structure)


def _with_adjustments(contest: Contest, recipe: Recipe, structure: Structure) -> Contest:
    """Where the recipe leaves them open, adjustments join the rule's candidate: as many as seem best beside what widths
    alone lose, a try of which comes first.
    """
    rule, bench = next(iter(contest.field.values())), contest.bench
    if "adjust.edits" not in open_options(recipe) or rule.blocks or not contest.fits(rule.name, 0):
        return contest
    contest.attempt(rule.name, 0)
    own, reference = (one or {} for one in (contest.record(rule.name, 0), contest.tries.get("reference")))
    losses = [one.get("figures", {}).get("loss") for one in (own, reference)]
    lost = math.inf if None in losses else losses[0] - losses[1]
    found = bench.adjustments()
    numbers = found.numbers(share_of(bench.inputs, bench.whole, found), lost)
    return replace(contest, field={one.name: one for one in candidates(recipe, structure, numbers)})


def _depends(job: Job) -> dict[str, Any]:
    """All that a try depends on: options, and the network that is cut."""
    options: Recipe = job.run.recipe
    return {
        "recipe": options.model_dump(mode="json", exclude={"steps": {"controls", "measure", "sparsify"}}),
        "reference": job.run.record(job.reference)["files"],
    }


def _frozen(job: Job) -> dict[str, Any]:
    """Times that the tries go by, measured once."""
    pace, options = pace_of(job.inputs), job.recipe.steps
    recovery = pace.training(options.recover.epochs, share=pace.share, taught=True)
    about = {"train": pace.train, "look": pace.look, "counts": dict(pace.counts), "share": pace.share}
    return {"pace": about, "limit": limit_of(options.choose, recovery)}


def _losses(contest: Contest, cut: str) -> Losses:
    """The loss of the recovery, by trainings of the chosen cut as long as the last rung's."""
    names = _losses_to_try(contest)
    if len(contest.steps) < 2 or len(names) < 2:
        return Losses()
    if sum(contest.fits_loss(cut, loss) for loss in names) < 2 or not contest.fits_loss(cut, AUTO):
        return Losses(standings=tuple(Standing(name=name, out=f"{LATE} to try it") for name in names[1:]))
    rung = len(contest.steps) - 1
    judge = Judge(
        cost=lambda loss: 1.0,
        noise=lambda best, other, _: contest.noise_of(
            contest.record(cut, rung, best), contest.record(cut, rung, other)
        ),
        margin=contest.margin,
    )
    found = halve(
        names,
        lambda loss, _: contest.attempt_loss(cut, loss),
        (),
        judge,
        fits=lambda loss, _: contest.fits_loss(cut, loss),
    )
    return Losses(standings=found.standings, preferred=found.preferred)


def _losses_to_try(contest: Contest) -> tuple[str, ...]:
    """First what the recovery does by itself."""
    inputs, recipe = contest.bench.inputs, contest.bench.inputs.recipe
    wanted = recipe.steps.choose.losses and "recover.loss" in open_options(recipe)
    if not wanted or recipe.task not in ONE_CLASS_EACH or inputs.classes < 2:
        return (AUTO,)
    others = ["dist"] if inputs.classes >= FEW_CLASSES else []
    return (AUTO, *others, *([] if recipe.steps.recover.mixup else ["dkd"]))
