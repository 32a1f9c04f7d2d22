"""What a recipe leaves open is tried or ruled; what it writes stands."""

from typing import Any

import pytest

from penjing.core import Recipe
from penjing.pipeline._settle import chooses, may_trim, open_options, settled
from penjing.pipeline._steps import steps_of

BASE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


def recipe(steps: dict[str, Any] | None = None, **more: Any) -> Recipe:
    return Recipe.of({**BASE, **more, "steps": steps or {}})


def test_nothing_written_is_tried_and_a_written_criterion_is_obeyed() -> None:
    assert chooses(recipe())
    assert not chooses(recipe({"prune": {"criterion": "l2"}}))
    assert not chooses(recipe({"choose": {"on": False}}))
    assert chooses(recipe({"choose": {"on": True}, "prune": {"criterion": "l2"}}))


def test_the_step_stands_before_blocks_and_units_go() -> None:
    names = [step.name for step in steps_of(recipe())]
    assert names[:7] == ["base", "transfer", "choose", "trim", "adjust", "prune", "recover"]
    ruled = [step.name for step in steps_of(recipe({"prune": {"criterion": "l2"}}))]
    assert ruled[:4] == ["base", "transfer", "prune", "recover"]
    assert not may_trim(recipe({"trim": {"blocks": 0}}))


@pytest.mark.parametrize(
    ("task", "criterion", "stream"),
    [("image-classification", "obs", True), ("text-classification", "taylor", False)],
)
def test_without_a_try_it_is_what_suits_the_task(task: str, criterion: str, stream: bool) -> None:
    steps = settled(recipe(task=task, model="hf:somewhere")).steps
    kinds = steps.prune.granularity
    assert steps.prune.criterion == criterion
    assert (kinds is None or "embed" in kinds) == stream
    assert (steps.trim.blocks, steps.prune.round_to, steps.recover.loss) == (0, 8, "auto")


def test_what_was_chosen_fills_what_was_open_and_no_more() -> None:
    asked = recipe({"prune": {"round_to": 4, "protect": ["a"]}, "recover": {"loss": "kl"}})
    chosen = {
        "prune": {"criterion": "l2", "round_to": 1, "protect": ["a", "b"], "granularity": ["channel"]},
        "trim": {"blocks": 2},
        "recover": {"loss": "dkd"},
    }
    steps = settled(asked, chosen).steps
    assert (steps.prune.criterion, steps.prune.round_to) == ("l2", 4)
    assert (steps.prune.protect, steps.prune.granularity) == (("a", "b"), ("channel",))
    assert (steps.trim.blocks, steps.recover.loss) == (2, "kl")
    assert "prune.round_to" not in open_options(asked)
