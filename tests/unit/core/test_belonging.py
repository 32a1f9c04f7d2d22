"""Options that the task has no use for are refused, and every option is either for all tasks or said to be for some."""

from typing import Any, get_args

import pytest

from penjing.core import DataOptions, Recipe, UsageError
from penjing.core._belonging import BELONGING
from penjing.core._recipe import TaskName

BASE = {"model": "timm:resnet18", "budget": "macs<=0.5x"}
FOR_ALL = {"source", "splits", "skip_bad", "label_column"}
ASKED: dict[str, Any] = {
    "image_size": 64,
    "beam": 5,
    "data.augment": "light",
    "data.path_column": "file",
    "data.text_column": "body",
    "data.pair_column": "reply",
    "data.tokenizer": "folder",
    "data.max_length": 64,
    "data.seconds": 1.0,
    "data.max_seconds": 5.0,
    "data.alphabet": "abc",
    "steps.transfer.label_smoothing": 0.1,
    "steps.transfer.mixup": 0.2,
    "steps.distil.mixup": 0.2,
    "steps.recover.mixup": 0.2,
    "steps.sparsify.mixup": 0.2,
}


def recipe(task: str, key: str, value: Any, **more: Any) -> Recipe:
    values: dict[str, Any] = {**BASE, "task": task, "data": {"source": "there"}}
    *above, last = key.split(".")
    within = values
    for part in above:
        within = within.setdefault(part, {})
    within[last] = value
    return Recipe.of(values, **more)


def test_every_option_of_data_is_for_all_tasks_or_for_some():
    told = {key.removeprefix("data.") for key in BELONGING if key.startswith("data.")}
    assert told | FOR_ALL == set(DataOptions.model_fields)
    assert not told & FOR_ALL
    assert ASKED.keys() == BELONGING.keys()
    assert all(set(use.tasks) < set(get_args(TaskName)) for use in BELONGING.values())


@pytest.mark.parametrize("key", BELONGING)
@pytest.mark.parametrize("task", get_args(TaskName))
def test_an_option_is_taken_by_its_tasks_and_refused_by_the_others(task: str, key: str):
    use = BELONGING[key]
    if task in use.tasks:
        recipe(task, key, ASKED[key])
        return
    with pytest.raises(UsageError) as raised:
        recipe(task, key, ASKED[key], where="my.yaml")
    said = str(raised.value)
    assert "my.yaml" in said
    assert all(word in said for word in (f"{key}: is {use.what}", task, *use.tasks, "Fix:"))
    for idle in use.idle:
        recipe(task, key, idle)


def test_the_command_line_is_blamed_for_what_it_said():
    given = ("data.alphabet",)
    with pytest.raises(UsageError, match="the command line cannot be used:\n  --alphabet: is the characters"):
        recipe("image-classification", "data.alphabet", "abc", where="my.yaml", given=given)


def test_what_a_task_fills_in_belongs_to_it():
    for task in get_args(TaskName):
        found = Recipe.of({**BASE, "task": task, "data": "there"})
        assert Recipe.of(found.model_dump(mode="json")) == found
