"""Networks are compared on examples that they have not learnt from, or it is said that they may have."""

import json
import shutil
from pathlib import Path

import pytest

from penjing.core import BudgetError, Recipe, UsageError
from penjing.pipeline import compare, inspect, shape
from penjing.pipeline._files import read_sealed, write_sealed
from penjing.pipeline._heldout import check_teacher
from penjing.pipeline._job import Inputs

VALUES = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.6x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
        "prune": {"criterion": "l2", "round_to": 1},
        "recover": {"epochs": 1, "lr": 0.01},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [2]},
    },
}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("code") / "net.py"
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", place)
    return f"file:{place}:tiny"


@pytest.fixture(scope="module")
def runs(code: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place, made = tmp_path_factory.mktemp("runs"), {}
    for name, change in {"a": {}, "b": {"budget": "macs<=0.5x"}, "other": {"seed": 7}}.items():
        made[name] = str(place / name)
        shape(Recipe.of(VALUES | {"model": code} | change), made[name], trust=True)
    return made


def test_two_runs_on_one_split_are_compared_on_it(runs: dict[str, str], code: str):
    found = compare(runs["a"], runs["b"] + "/model", data="builtin:digits", trust=True, model=code)
    assert (found["data"]["split"], found["note"]) == ("certification", "")
    assert found["data"]["n"] < 500
    for spec, row in zip(("a", "b"), found["rows"], strict=True):
        measured = json.loads((Path(runs[spec]) / "metrics.json").read_text())["rows"]
        assert row["accuracy"] == next(theirs["accuracy"] for theirs in measured if theirs["name"] == "slim")


def test_runs_with_different_splits_are_refused(runs: dict[str, str], code: str):
    with pytest.raises(UsageError, match=r"a \(seed 0\) and .*other \(seed 7\) certified with different"):
        compare(runs["a"], runs["other"], data="builtin:digits", trust=True, model=code)


def test_another_set_is_never_called_certification(runs: dict[str, str], code: str):
    found = compare(runs["other"], code, data="builtin:digits", image_size=8, trust=True, model=code)
    assert found["data"]["split"] == "certification"
    found = compare(code, code, data="builtin:digits", image_size=8, trust=True, batch_sizes=(2,))
    assert found["data"]["split"] == "all"
    assert found["data"]["n"] > 1700
    assert "may have been trained on" in found["note"]


def test_a_run_made_from_code_needs_it_named(runs: dict[str, str], code: str):
    assert inspect(runs["a"], trust=True, model=code)["params"] > 0
    with pytest.raises(UsageError, match="--model file:"):
        inspect(runs["a"], trust=True)


def test_a_teacher_that_knows_the_certification_examples_is_refused(runs: dict[str, str], code: str):
    inputs = Inputs(recipe=Recipe.of(VALUES | {"model": code, "teacher": runs["other"]}), trust=True)
    check_teacher(inputs, runs["a"])
    for spec in (runs["other"], f"{runs['other']}/model"):
        with pytest.raises(UsageError, match=r"learnt from examples that certify here.*--seed 7"):
            check_teacher(inputs, spec)


def test_a_run_on_the_same_splits_teaches_as_it_is(runs: dict[str, str], code: str, tmp_path: Path):
    recipe = Recipe.of(VALUES | {"model": code, "teacher": runs["a"]})
    with pytest.raises(BudgetError):
        shape(recipe.model_copy(update={"budget": "macs<=10"}), tmp_path / "run", trust=True)
    metrics = shape(recipe, tmp_path / "run", trust=True)
    assert metrics["reference"] == "distilled"


def test_other_data_is_used_whole_and_said_so(runs: dict[str, str], code: str):
    recorded = Path(runs["a"]) / "run.json"
    content = recorded.read_bytes()
    ledger = read_sealed(recorded)
    ledger["inputs"]["train examples"] = "of other data"
    try:
        write_sealed(recorded, ledger)
        found = compare(runs["a"], runs["a"], data="builtin:digits", trust=True, model=code, batch_sizes=(2,))
    finally:
        recorded.write_bytes(content)
    assert found["data"]["split"] == "all"
    assert found["note"]
