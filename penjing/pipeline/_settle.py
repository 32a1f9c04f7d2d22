"""What a recipe leaves open, and what it becomes."""

from collections.abc import Mapping
from typing import Any

from penjing.core import Recipe
from penjing.core._step_defaults import method_for

OPEN = "auto"


def chooses(recipe: Recipe) -> bool:
    """Whether a run of `recipe` tries methods before it takes one."""
    asked = recipe.steps.choose.on
    return recipe.steps.prune.criterion == OPEN if asked == "auto" else asked


def may_trim(recipe: Recipe) -> bool:
    """Whether a run of `recipe` may drop blocks."""
    blocks = recipe.steps.trim.blocks
    return chooses(recipe) if blocks == OPEN else blocks > 0


def may_adjust(recipe: Recipe) -> bool:
    """Whether a run of `recipe` may change components."""
    options = recipe.steps.adjust
    return bool(options.do) or (chooses(recipe) if options.edits == OPEN else options.edits > 0)


def folds(recipe: Recipe) -> bool:
    """Whether batch norms are folded once training is over: a runtime that compiles the graph does so itself."""
    asked = recipe.steps.fold.norms
    return recipe.runtime in ("eager", "compile") if asked == OPEN else asked


def seeds_of(recipe: Recipe) -> tuple[str, ...]:
    """The steps that repeat the last recovery with another seed."""
    return tuple(f"seed:{number}" for number in range(1, recipe.seeds))


def open_options(recipe: Recipe) -> frozenset[str]:
    """The options that are left open, as "prune.criterion"; where kinds are, more may be protected too."""
    steps = recipe.steps
    known = {f"prune.{name}": getattr(steps.prune, name) for name in method_for(recipe.task)}
    known |= {"trim.blocks": steps.trim.blocks, "adjust.edits": steps.adjust.edits}
    known |= {"prune.scope": steps.prune.scope}
    known |= {"recover.loss": steps.recover.loss}
    found = frozenset(name for name, value in known.items() if value == OPEN)
    return found | {"prune.protect"} if "prune.granularity" in found else found


def settled(recipe: Recipe, chosen: Mapping[str, Mapping[str, Any]] | None = None) -> Recipe:
    """`recipe` with what it leaves open as `chosen` (options by step), and where that says nothing as suits the task.

    Two are settled where they are used: the scope, by the criterion, and the loss of a recovery, by its networks.
    """
    rules: dict[str, Mapping[str, Any]] = {"prune": method_for(recipe.task), "trim": {"blocks": 0}}
    rules["adjust"] = {"edits": 0}
    steps, left = recipe.model_dump()["steps"], open_options(recipe)
    for step, options in (*rules.items(), *(chosen or {}).items()):
        steps[step] |= {name: value for name, value in options.items() if f"{step}.{name}" in left}
    return Recipe.model_validate({**recipe.model_dump(), "steps": steps})
