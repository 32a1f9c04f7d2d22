"""What a recipe may search, and how it is told what it may not."""

import pytest

from penjing.core import Recipe, UsageError

BASE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


def _of(**tune: object) -> Recipe:
    return Recipe.of(BASE | {"steps": {"tune": tune}})


def test_nothing_is_searched_unless_it_is_asked():
    assert not Recipe.of(BASE).steps.tune.on
    assert _of(trials=1).steps.tune.on
    assert _of(seconds=1.0).steps.tune.on
    assert not _of(space={"lr": [1e-3, 1e-2]}).steps.tune.on


def test_what_is_asked_survives_the_file():
    recipe = _of(trials=4, space={"lr": [0.001, 0.01], "loss": ["kl", "dist"]})
    assert recipe.steps.tune.space == {"lr": (0.001, 0.01), "loss": ("kl", "dist")}
    assert Recipe.of(__import__("yaml").safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    ("tune", "said"),
    [
        ({"space": {"learning_rate": [1, 2]}}, "did you mean"),
        ({"space": {"temprature": [1, 2]}}, "temperature"),
        ({"space": {"lr": [0.1, 0.01]}}, "lr: .low, high."),
        ({"space": {"lr": [-1.0, 0.01]}}, "greater than 0"),
        ({"space": {"optimizer": ["adamw", "adam"]}}, "optimizer"),
        ({"space": {"loss": ["kl"]}}, "two and more names"),
        ({"space": {}}, "ranges"),
        ({"storage": "study.db"}, "storage"),
        ({"share": 0}, "share"),
        ({"trails": 3}, "trials"),
    ],
    ids=lambda item: str(item)[:30],
)
def test_a_mistake_is_told_with_its_way_out(tune: dict, said: str):
    with pytest.raises(UsageError, match=said):
        _of(**tune)
