"""The steps of the main job, in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.core import Recipe
from penjing.pipeline import (
    _adjust,
    _choose,
    _deliver,
    _explain,
    _figures,
    _fold,
    _learn,
    _shrink,
    _smaller,
    _stability,
)
from penjing.pipeline._job import Job
from penjing.pipeline._rounds import rounds_of
from penjing.pipeline._settle import chooses, folds, may_adjust, may_trim, seeds_of
from penjing.pipeline._smaller import looks_for_rival

READS = {
    "base": (
        "schema_version",
        "task",
        "model",
        "model_args",
        "weights",
        "data",
        "runtime",
        "device",
        "seed",
        "image_size",
        "beam",
    ),
    "transfer": ("steps.transfer",),
    "teacher": ("teacher", "teacher_weights", "steps.transfer"),
    "distil": ("teacher", "teacher_weights", "steps.distil"),
    "choose": (
        "budget",
        "margin",
        "steps.choose",
        "steps.trim",
        "steps.adjust",
        "steps.prune",
        "steps.fold",
        "steps.recover",
    ),
    "trim": ("steps.trim", "steps.recover.reconstruct", "steps.recover.reconstruct_examples"),
    "adjust": ("budget", "steps.adjust", "steps.fold"),
    "prune": ("budget", "steps.prune", "steps.fold", "steps.recover.reconstruct"),
    "tune": ("steps.tune", "steps.recover"),
    "recover": ("steps.recover", "steps.prune.between", "steps.tune"),
    "sparsify": ("steps.sparsify",),
    "fold": ("steps.fold",),
    "smaller:choose": ("steps.controls.smaller", "steps.measure.batch_sizes"),
    "smaller:transfer": ("steps.transfer",),
    "control:smaller": (
        "steps.recover",
        "steps.prune",
        "steps.distil.epochs",
        "steps.sparsify",
        "steps.tune",
    ),
    "seed": ("seeds", "steps.recover", "steps.tune"),
    "control:scratch": ("steps.recover", "steps.prune", "steps.controls.scratch", "steps.tune"),
    "control:random": ("steps.recover", "steps.prune", "steps.controls.random", "steps.tune"),
    "measure": ("steps.measure", "budget", "margin", "also"),
    "save": ("margin", "runtime", "steps.certify"),
    "stability": ("steps.stability",),
    "explain": ("seeds", "steps.explain"),
}
_RIVAL = (
    ("smaller:choose", _smaller.choose_step),
    ("smaller:transfer", _smaller.transfer_step),
    ("control:smaller", _smaller.rival_step),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`run(job, out, figures)` writes files below `out`, in their places relative to the run folder."""

    name: str
    run: Callable[[Job, Path, dict[str, Any]], None]

    def reads(self, key: str) -> bool:
        """True where the setting `key` (dotted) of a recipe has a say in this step's result."""
        reads = READS.get(self.name) or READS[self.name.partition(":")[0]]
        return any(key == read or key.startswith(f"{read}.") for read in reads)


def steps_of(recipe: Recipe) -> tuple[Step, ...]:
    """The steps that a run of `recipe` takes, in order."""
    asked = (
        (True, "base", _learn.base),
        (True, "transfer", _learn.transfer_step),
        (recipe.teacher, "teacher", _learn.teacher_step),
        (recipe.teacher, "distil", _learn.distil_step),
        (chooses(recipe), _choose.STEP, _choose.choose_step),
        (may_trim(recipe), "trim", _shrink.trim_step),
        (may_adjust(recipe), _adjust.STEP, _adjust.adjust_step),
        *_rounds(recipe),
        *_seeds(recipe),
        (recipe.steps.sparsify.on, "sparsify", _learn.sparsify_step),
        (folds(recipe), _fold.STEP, _fold.fold_step),
        *((looks_for_rival(recipe), name, run) for name, run in _RIVAL),
        (recipe.steps.controls.scratch, "control:scratch", _learn.scratch_step),
        (recipe.steps.controls.random, "control:random", _learn.random_step),
        (True, "measure", _figures.measure_step),
        (True, "save", _deliver.save_step),
        (True, _stability.STEP, _stability.stability_step),
        (True, _explain.STEP, _explain.explain_step),
    )
    return tuple(Step(name=name, run=run) for wanted, name, run in asked if wanted)


def _seeds(recipe: Recipe) -> Iterator[tuple[bool, str, Callable[[Job, Path, dict[str, Any]], None]]]:
    for name in seeds_of(recipe):
        yield True, name, lambda job, out, figures, name=name: _learn.seed_step(job, name, out, figures)


def _rounds(recipe: Recipe) -> Iterator[tuple[bool, str, Callable[[Job, Path, dict[str, Any]], None]]]:
    for one in rounds_of(recipe):
        yield True, one.prune, lambda job, out, figures, one=one: _shrink.prune_step(job, one, out, figures)
        tunes = one.last and recipe.steps.tune.on
        yield tunes, "tune", lambda job, out, figures, one=one: _learn.tuning_step(job, one, out, figures)
        yield (
            True,
            one.recover,
            lambda job, out, figures, one=one: _learn.recover_step(job, one, out, figures),
        )
