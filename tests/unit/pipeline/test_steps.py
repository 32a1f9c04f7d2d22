"""What the steps take from the recipe, and what they refuse."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import penjing as pj
from penjing.core import Recipe, RunError, Sounds, SourceError
from penjing.pipeline import demo_recipe, steps_of
from penjing.pipeline._answer import check_answer
from penjing.pipeline._files import publish
from penjing.pipeline._job import read_state, state_file, write_state
from penjing.pipeline._learn import rescaled
from penjing.pipeline._shrink import check_budget
from penjing.recover import DISTIL, RECOVER, TRANSFER
from penjing.tasks._speech import speech_recognition
from penjing.tasks._speech_alphabet import Alphabet

BASE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


def _names(**change: object) -> list[str]:
    return [step.name for step in steps_of(Recipe.of(BASE | change))]


def test_steps_follow_the_recipe():
    rival = ["smaller:choose", "smaller:transfer", "control:smaller"]
    told = ["prune", "recover", "fold", *rival, "control:scratch", "measure", "save", "stability", "explain"]
    assert _names() == ["base", "transfer", "choose", "trim", "adjust", *told]
    assert _names(steps={"prune": {"criterion": "obs"}}) == ["base", "transfer", *told]
    assert rival[0] not in _names(steps={"controls": {"smaller": "none"}})
    assert rival[0] not in _names(model="builtin:speaker-lstm")
    assert rival[0] in _names(model="builtin:speaker-lstm", steps={"controls": {"smaller": "timm:resnet10t"}})
    assert _names(teacher="timm:resnet50")[:4] == ["base", "transfer", "teacher", "distil"]
    assert "fold" not in _names(runtime="onnx")
    assert "fold" in _names(runtime="onnx", steps={"fold": {"norms": True}})
    assert "adjust" in _names(steps={"prune": {"criterion": "obs"}, "adjust": {"edits": 2}})
    assert "trim" in _names(steps={"trim": {"blocks": 2}})
    assert [name for name in _names(seeds=3) if name.startswith("seed:")] == ["seed:1", "seed:2"]
    assert "control:random" in _names(steps={"controls": {"random": True, "scratch": False}})
    assert "control:scratch" not in _names(steps={"controls": {"scratch": False}})


@pytest.mark.parametrize(
    ("step", "defaults"),
    [("transfer", TRANSFER), ("distil", DISTIL), ("recover", RECOVER)],
    ids=lambda item: str(item)[:8],
)
def test_the_recipe_has_the_defaults_of_the_training_functions(step: str, defaults: object):
    """The recipe lives below the functions and repeats their defaults; they may not drift apart."""
    theirs = {**defaults.training.to_json(), **{k: v for k, v in asdict(defaults).items() if k != "training"}}  # type: ignore[attr-defined]
    ours = getattr(Recipe.of(BASE).steps, step).model_dump()
    assert {key: theirs[key] for key in ours if key in theirs} == {
        key: ours[key] for key in ours if key in theirs
    }
    assert set(ours) - set(theirs) <= {"head_lr", "label_smoothing", "cache_mb"}


def test_the_demo_is_a_recipe_on_its_own_splits():
    recipe = demo_recipe(seed=3)
    assert recipe.seed == 3
    assert recipe.data.splits == (2500, 500, 2000)
    assert recipe.model == "timm:tf_efficientnet_lite0"


RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_can_be_used(path: Path):
    recipe = Recipe.load(path)
    check_budget(recipe)
    assert Recipe.of(yaml.safe_load(recipe.to_yaml())) == recipe


def test_the_demo_recipe_in_the_repository_is_the_demo():
    assert Recipe.load(next(path for path in RECIPES if path.stem == "demo")) == demo_recipe()


def test_states_come_back_with_buffers_that_no_state_dict_has(tmp_path: Path):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model.register_buffer("table", torch.randn(4), persistent=False)
    write_state(model, tmp_path, "recover")
    other = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    other.register_buffer("table", torch.zeros(4), persistent=False)
    read_state(other, state_file(tmp_path, "recover"))
    assert torch.equal(other.table, model.table)  # type: ignore[arg-type]
    assert torch.equal(other[0].weight, model[0].weight)
    assert not other.training


@pytest.mark.parametrize("width", [2, 5])
def test_a_state_of_another_structure_is_refused(tmp_path: Path, width: int):
    write_state(nn.Sequential(nn.Linear(3, 2)), tmp_path, "recover")
    other = nn.Linear(3, 2) if width == 2 else nn.Sequential(nn.Linear(3, width))
    with pytest.raises(RunError, match="does not hold the weights"):
        read_state(other, state_file(tmp_path, "recover"))


def test_scratch_weights_keep_the_variance_of_the_outputs():
    whole, slim = nn.Linear(400, 8, bias=False), nn.Linear(100, 8, bias=False)
    slim.weight.data = whole.weight.data[:, :100].clone()
    inputs = torch.randn(2000, 400)
    before = whole(inputs).var().item()
    assert rescaled(slim, whole)(inputs[:, :100]).var().item() == pytest.approx(before, rel=0.2)


def test_publishing_keeps_relative_places(tmp_path: Path):
    staging, target = tmp_path / "s", tmp_path / "t"
    (staging / "model").mkdir(parents=True)
    target.mkdir()
    (staging / "model" / "a").write_text("a")
    (staging / "b").write_text("b")
    assert publish(staging, target) == ("b", "model/a")
    assert (target / "model" / "a").read_text() == "a"


def test_fresh_slim_weights_of_a_network_that_computes_them():
    """Weight norm: the slim network holds the weight itself, the whole one its size and direction."""
    torch.manual_seed(0)
    second = nn.utils.parametrizations.weight_norm(nn.Linear(64, 8))
    whole, example = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), second), torch.randn(4, 16)
    slim, plan = pj.prune(whole, example, ratio=0.5)
    assert pj.verify(whole, slim, plan, example).passed
    before = slim[2].weight.detach().clone()
    assert tuple(before.shape) == (8, 32)
    torch.testing.assert_close(rescaled(slim, whole)[2].weight, before * 2**0.5)


def test_answers_of_another_alphabet_are_told_as_such():
    reads = Sounds(sample_rate=8000, features="waveform", layout="samples")
    task = speech_recognition(Alphabet(symbols=("<blank>", "a", "b")))
    with pytest.raises(SourceError, match=r"x: Speech recognition needs logits .* 3 symbols\].*Fix"):
        check_answer("x", nn.Unflatten(1, (4, 5)), torch.randn(2, 20), reads, task=task)
