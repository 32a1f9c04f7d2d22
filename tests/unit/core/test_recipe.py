"""The recipe: defaults filled in, mistakes explained, no code."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from penjing.core import Recipe, UsageError, read_yaml
from penjing.core._yaml import dump_yaml

BASE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


@dataclass(frozen=True)
class Mistake:
    name: str
    change: dict
    said: str


MISTAKES = (
    Mistake("a key of the top", {"bugdet": "macs<=0.5x"}, "bugdet: unknown key; did you mean `budget`?"),
    Mistake(
        "a key of a step",
        {"steps": {"transfer": {"epoch": 3}}},
        "transfer.epoch: unknown key; did you mean `epochs`",
    ),
    Mistake("a step", {"steps": {"prun": {}}}, "steps.prun: unknown key; did you mean `prune`?"),
    Mistake("nothing near", {"zzz": 1}, "known here: schema_version, task"),
    Mistake("a type", {"image_size": "large"}, "image_size"),
    Mistake("a range", {"steps": {"recover": {"lr": -1}}}, "steps.recover.lr"),
    Mistake("a task", {"task": "image-clasification"}, "image-classification"),
    Mistake("a budget", {"budget": "mac<=0.5x"}, "did you mean 'macs'"),
    Mistake("a margin", {"margin": -1}, "a margin is in points, at least 0"),
    Mistake("rungs without keeps", {"steps": {"choose": {"rungs": [0.1]}}}, "rungs and keep go together"),
    Mistake(
        "rungs that shrink", {"steps": {"choose": {"rungs": [0.5, 0.1]}}}, "shares of the recovery that grow"
    ),
    Mistake("ever more", {"steps": {"choose": {"keep": [2, 5]}}}, "ever fewer"),
    Mistake("an option of choose", {"steps": {"choose": {"second": 5}}}, "did you mean `seconds`?"),
    Mistake("too many", {"steps": {"recover": {"reconstruct_examples": 10**30}}}, "reconstruct_examples"),
    Mistake("a giant batch", {"steps": {"transfer": {"batch_size": 10**30}}}, "steps.transfer.batch_size"),
    Mistake("a giant picture", {"image_size": 100_000}, "image_size"),
    Mistake("not a number", {"steps": {"recover": {"lr": float("nan")}}}, "steps.recover.lr"),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_names_the_file_the_key_and_a_way_out(mistake: Mistake):
    with pytest.raises(UsageError) as raised:
        Recipe.of(BASE | mistake.change, where="my.yaml")
    assert "my.yaml" in str(raised.value)
    assert mistake.said in str(raised.value)


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match="model: missing"):
        Recipe.of({"task": "image-classification", "data": "x", "budget": "macs<=0.5x"})


def test_defaults_are_written_out_and_read_back(tmp_path: Path):
    recipe = Recipe.of(BASE)
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml())
    assert "temperature:" in file.read_text()
    assert "splits:" in file.read_text()
    assert Recipe.load(file) == recipe


def test_splits_are_counts_or_shares():
    assert Recipe.of(BASE | {"data": {"source": "x", "splits": [10, 5, 5]}}).data.splits == (10, 5, 5)
    assert Recipe.of(BASE | {"data": {"source": "x", "splits": [0.5, 0.2, 0.3]}}).data.splits == (
        0.5,
        0.2,
        0.3,
    )
    with pytest.raises(UsageError, match=r"data\.splits"):
        Recipe.of(BASE | {"data": {"source": "x", "splits": [-1, 5, 5]}})


@pytest.mark.parametrize("key", ["model", "teacher"])
def test_a_recipe_may_not_name_code(tmp_path: Path, key: str):
    file = tmp_path / "recipe.yaml"
    values = BASE | {key: "file:evil.py:make"}
    file.write_text("".join(f"{name}: {value}\n" for name, value in values.items()))
    with pytest.raises(UsageError, match=f"--{key} file:evil.py:make"):
        Recipe.load(file)


def test_yaml_tags_do_not_run(tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text(f"model: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    with pytest.raises(UsageError, match="not YAML"):
        Recipe.load(file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "a: [\n", "1: 2\n"])
def test_what_is_no_mapping_is_refused_with_the_file(tmp_path: Path, text: str):
    file = tmp_path / "odd.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"odd\.yaml"):
        Recipe.load(file)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"gone\.yaml"):
        Recipe.load(tmp_path / "gone.yaml")


def test_weights_follow_the_kind_of_source():
    assert Recipe.of(BASE).weights == "pretrained"
    assert Recipe.of(BASE | {"model": "file:mine.py:make"}).weights == "none"
    assert Recipe.of(BASE | {"weights": "w.safetensors"}).weights == "w.safetensors"
    assert Recipe.of(BASE).teacher_weights == "none"
    assert Recipe.of(BASE | {"teacher": "torchvision:resnet50"}).teacher_weights == "pretrained"


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB + "model: *j\n", "anchors and aliases are refused"),
        ("model: &x timm:y\n", "&x: anchors"),
        ("model: timm:a\nseed: 1\nmodel: timm:b\n", "`model` is given twice"),
        ("steps:\n  prune: {scope: global, scope: uniform}\n", "`scope` is given twice"),
        ("model: " + "x" * 100_001, "larger than 100 kB"),
        ("a: " + "[" * 5_000, "nested too deeply"),
        ("seed: " + "9" * 10_000, "not YAML"),
        ("seed: 2001-99-99", "not YAML"),
    ],
    ids=lambda item: item[:20],
)
def test_yaml_that_harms_is_refused_at_once(tmp_path: Path, text: str, said: str):
    file = tmp_path / "harm.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"harm\.yaml") as raised:
        Recipe.load(file)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 1_000


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "x" * 10**6},
        {"seed": [[1] * 10**5] * 3},
        {"x" * 10**5: 1},
        {"budget": "macs<=" + "1" * 10**6},
    ],
    ids=["text", "lists", "key", "budget"],
)
def test_giants_are_cut_in_messages(change: dict):
    with pytest.raises(UsageError) as raised:
        Recipe.of(BASE | change)
    assert len(str(raised.value)) < 600


def test_a_mistake_of_the_command_line_is_not_the_files():
    with pytest.raises(UsageError) as raised:
        Recipe.of(BASE | {"image_size": 2, "data": ""}, where="my.yaml", given=("image_size", "data.source"))
    said = str(raised.value)
    assert "--image-size: " in said
    assert "--data: data without a name" in said
    assert "my.yaml" not in said
    with pytest.raises(UsageError, match=r"(?s)command line cannot.*--image-size.*my\.yaml cannot.*  seed:"):
        Recipe.of(BASE | {"image_size": 2, "seed": -1}, where="my.yaml", given=("image_size",))


@pytest.mark.parametrize("change", [{"data": {"splits": [1, 1, 1]}}, {"data": {"source": None}}])
def test_missing_data_says_how_to_give_it(change: dict):
    with pytest.raises(UsageError, match=r"missing; give --data or data\.source"):
        Recipe.of(BASE | change)


@pytest.mark.parametrize(
    "splits", [[0.5, 0.5], [0.5, 0.4, 0.3], [10, 0.2, 5], ["a", 1, 2], "half", [True, 1, 1]]
)
def test_wrong_splits_are_explained_in_words(splits: object):
    with pytest.raises(UsageError, match="three counts") as raised:
        Recipe.of(BASE | {"data": {"source": "x", "splits": splits}})
    assert "constrained" not in str(raised.value)
    assert str(raised.value).count("data.splits") == 1


def test_on_is_a_key_like_any_other(tmp_path: Path):
    file = tmp_path / "recipe.yaml"
    file.write_text("steps:\n  choose:\n    on: false\n")
    assert read_yaml(file) == {"steps": {"choose": {"on": False}}}
    file.write_text("steps:\n  choose: {on: auto}\n")
    assert Recipe.of(BASE | read_yaml(file)).steps.choose.on == "auto"


def test_stored_recipes_need_no_aliases(tmp_path: Path):
    shared = [1, 1, 1]
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_yaml({"a": shared, "b": shared}))
    assert read_yaml(file) == {"a": shared, "b": shared}
