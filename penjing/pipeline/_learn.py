"""The steps that learn from data: transfer, distil, recover, and the controls that get the same recovery."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import Plan
from penjing.measure import measure_zeros
from penjing.pipeline._facts import facts
from penjing.pipeline._job import Job, write_plan
from penjing.pipeline._rebuilt import rebuild_to
from penjing.pipeline._rounds import ONCE, Round, epochs_in_all, rounds_of
from penjing.pipeline._shrink import calibration, cut, cut_from, start
from penjing.pipeline._taught import distillation, finish, listening, transferred
from penjing.pipeline._tune import STEP, tune_step, tuned
from penjing.recover import Fit, Sparsity, distil, recover, sparsify
from penjing.sources import LoadedSource
from penjing.tasks import LabelledData

SPLITS = ("train", "selection", "certification")


def base(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Loads network and data once and keeps what identifies them."""
    data, source = job.inputs.data, job.inputs.source(weights=job.recipe.weights, headed=True)
    for remark in (*data.remarks, _of_splits(job.recipe.data.splits, data), _of_head(source)):
        if remark:
            job.note("base", remark)
    figures |= {"source": source.source, "weights": source.weights, "input_size": list(data.size)}
    figures |= {"head": source.head, "head_kept": source.kept_head} if source.head else {}
    figures |= {"labels": list(data.labels), "examples": {name: data.n(name) for name in SPLITS}}
    job.run.remember(facts(job.inputs, ["base"]))


def _of_splits(asked: tuple[int | float, ...] | None, data: LabelledData) -> str:
    """What to say where counts were asked for and others are used; shares of the data are met as near as can be."""
    found = tuple(data.n(name) for name in SPLITS)
    if asked is None or sum(asked) <= 1 + 1e-9 or found == asked:
        return ""
    told = ["/".join(map(str, counts)) for counts in (found, asked)]
    return f"splits of {told[0]} examples are used, not {told[1]}: classes, groups and equal contents stay together"


def transfer_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Linear probe of a new head, and fine-tuning of the recipe's network."""
    source = job.inputs.source(weights=job.recipe.weights, headed=True)
    source.model.to(job.recipe.device)
    finish(job, "transfer", transferred(job, "transfer", source), out, figures)


def teacher_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """The same transfer for an external teacher; a saved network is taken as it is."""
    job.run.remember(facts(job.inputs, ["teacher"]))
    if job.inputs.saved_teacher:
        figures["source"] = job.recipe.teacher
        return
    source = job.inputs.teacher_source(job.recipe.teacher_weights)
    figures |= {"source": source.source, "weights": source.weights}
    if source.head:
        figures["head"] = source.head
        job.note("teacher", _of_head(source))
    finish(job, "teacher", transferred(job, "teacher", source), out, figures)


def distil_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """The transferred network learns from the teacher; the result is the reference."""
    options = distillation(job, "distil", job.recipe.steps.distil)
    student, teacher, seed = job.full("transfer"), job.teacher(), job.run.record("distil")["seed"]
    with listening(job, "distil", seed) as hooks:
        fit = distil(student, teacher, job.inputs.task(), job.inputs.data, **options, **hooks)
    finish(job, "distil", fit, out, figures)


def recover_step(job: Job, round: Round, out: Path, figures: dict[str, Any]) -> None:
    """Accuracy won back after the cut of a round."""
    recipe, name = job.recipe, round.recover
    begun = round.last and recipe.steps.tune.on  # then the network was reconstructed before tuning
    model, plan = job.slim(STEP if begun else round.prune, round.prune), job.plan(round.prune)
    epochs = recipe.steps.recover.epochs if round.last else recipe.steps.prune.between
    if not begun:
        _rebuild(job, name, model, round, plan, figures)
    finish(job, name, _recover(job, name, model, plan, epochs), out, figures)


def seed_step(job: Job, name: str, out: Path, figures: dict[str, Any]) -> None:
    """The last recovery once more, in another order and with other views."""
    last = rounds_of(job.recipe)[-1]
    begun = job.recipe.steps.tune.on
    model, plan = job.slim(STEP if begun else last.prune, last.prune), job.plan(last.prune)
    if not begun:
        _rebuild(job, name, model, last, plan, figures)
    seed, epochs = job.run.record(name)["seed"], job.recipe.steps.recover.epochs
    finish(job, name, _recover(job, name, model, plan, epochs, seed), out, figures)


def tuning_step(job: Job, round: Round, out: Path, figures: dict[str, Any]) -> None:
    """The search of options for the recovery after the cut of the last round."""
    plan = job.plan(round.prune)
    tune_step(job, lambda model, told: _rebuild(job, STEP, model, round, plan, told), out, figures)


def sparsify_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Single weights of the recovered network made zero, and its accuracy won back with those zeros held."""
    slim, teacher = job.slim("recover", "prune"), job.full(job.reference)
    options = distillation(job, "sparsify", job.recipe.steps.sparsify)
    sparsity = Sparsity(**{name: options.pop(name) for name in ("share", "pattern", "method", "layers")})
    examples = options.pop("calibration")
    with listening(job, "sparsify", job.run.record("sparsify")["seed"]) as hooks:
        fit = sparsify(
            slim,
            teacher,
            job.inputs.task(),
            job.inputs.data,
            sparsity=sparsity,
            calibration=calibration(job.inputs, examples) if sparsity.method == "wanda" else None,
            plan=job.plan("prune"),
            **options,
            **hooks,
        )
    figures |= {"zeros": asdict(measure_zeros(fit.model))}
    finish(job, "sparsify", fit, out, figures)


def scratch_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """The slim structure from random weights, with the same recovery: epochs of all rounds, data and teacher."""
    model, epochs = rescaled(job.blank_slim("prune"), job.fresh()), epochs_in_all(job.recipe)
    fit = _recover(job, "control:scratch", model, job.plan("prune"), epochs)
    finish(job, "control:scratch", fit, out, figures)


def random_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Random units removed to the same budget at once, with the same recovery."""
    model, plan = cut(job, "random", ONCE, figures)
    figures.pop("scored", None)
    write_plan(plan, out, "control:random")
    _rebuild(job, "control:random", model, ONCE, plan, figures)
    fit = _recover(job, "control:random", model, plan, epochs_in_all(job.recipe))
    finish(job, "control:random", fit, out, figures)


@torch.no_grad()
def rescaled(slim: nn.Module, whole: nn.Module) -> nn.Module:
    """`slim`, cut from fresh random weights, with every output's variance as it was meant for `whole`.

    Weights are drawn with a variance inverse to the fan-in, which the cut made smaller. What `whole` computes from
    others (weight norm) is a weight of its own in `slim`; components that stand in `slim` alone are drawn as their kind
    is.
    """
    there = dict(whole.named_modules())
    for path, module in slim.named_modules():
        reset = getattr(module, "reset_parameters", None)
        if path not in there and callable(reset):
            reset()
    for name, weight in slim.named_parameters():
        path, _, leaf = name.rpartition(".")
        wide = getattr(there.get(path), leaf, None)
        if weight.ndim > 1 and isinstance(wide, torch.Tensor):
            before, after = wide[0].numel(), weight[0].numel()
            weight.mul_((before / after) ** 0.5)
    return slim


def _of_head(source: LoadedSource) -> str:
    return f"{source.source}: {source.head}" if source.head else ""


def _rebuild(
    job: Job, step: str, model: nn.Module, round: Round, plan: Plan, figures: dict[str, Any]
) -> None:
    """Reconstruction towards the network that `round` cut, whose plan is part of `plan`."""
    if job.recipe.steps.recover.reconstruct is not False:
        wanted, own = cut_from(job, round, plan)
        rebuild_to(job, step, model, wanted, own, start(job, round), figures)


def _recover(job: Job, step: str, model: nn.Module, plan: Plan, epochs: int, seed: int | None = None) -> Fit:
    """Every recovery of a run draws the same order and views, so that rivals see the same batches, unless it is given a
    seed of its own.
    """
    options = (
        distillation(job, step, job.recipe.steps.recover) | tuned(job) | {"epochs": epochs, "plan": plan}
    )
    teacher, usual = job.full(job.reference), job.run.record("recover")["seed"]
    with listening(job, step, usual if seed is None else seed) as hooks:
        return recover(model, teacher, job.inputs.task(), job.inputs.data, **options, **hooks)
