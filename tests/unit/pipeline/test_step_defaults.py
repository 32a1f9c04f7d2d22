"""The options that suit a task are options that its steps know, and what the user writes wins."""

import inspect
from dataclasses import fields

import pytest

from penjing.core import Recipe
from penjing.core._step_defaults import method_for, step_defaults
from penjing.recover import Training, distil, recover, transfer
from penjing.search import DEFAULT_GRANULARITY

SEQUENCES = ("text-classification", "token-classification", "audio-classification", "speech-recognition")
STEPS = {"transfer": transfer, "distil": distil, "recover": recover}


def recipe(task: str, **more: object) -> Recipe:
    values = {"task": task, "model": "hf:somewhere", "data": "somewhere", "budget": "macs<=0.5x"}
    return Recipe.of({**values, **more})


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("task", SEQUENCES)
def test_every_default_is_an_option_of_its_step(task: str, pretrained: bool) -> None:
    found = step_defaults(task, pretrained=pretrained)
    assert set(found) == set(STEPS)
    training = {field.name for field in fields(Training)}
    for step, options in found.items():
        assert set(options) <= training | set(inspect.signature(STEPS[step]).parameters)
        Training(**{"epochs": 1} | {name: value for name, value in options.items() if name in training})


@pytest.mark.parametrize("task", SEQUENCES)
def test_the_method_of_a_task_keeps_its_residual_stream(task: str) -> None:
    assert set(DEFAULT_GRANULARITY) - set(method_for(task)["granularity"]) == {"embed"}
    assert method_for("image-classification")["granularity"] is None


def test_pictures_keep_the_defaults_and_encoders_get_small_rates_and_clipping() -> None:
    assert recipe("image-classification").steps.transfer.lr == 3e-3
    steps = recipe("text-classification").steps
    assert all(5e-5 <= step.lr <= 2e-4 and step.clip == 1.0 for step in (steps.transfer, steps.recover))
    assert steps.recover.bn_examples == 0
    scratch = recipe("speech-recognition", weights="none").steps.transfer
    assert scratch.lr > recipe("speech-recognition").steps.transfer.lr
    assert scratch.probe_epochs == 0


def test_what_is_written_wins_and_a_stored_recipe_reads_the_same() -> None:
    found = recipe("text-classification", steps={"transfer": {"lr": 0.5}})
    assert (found.steps.transfer.lr, found.steps.transfer.clip) == (0.5, 1.0)
    assert Recipe.of(found.model_dump(mode="json")) == found
