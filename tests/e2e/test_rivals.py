"""A ready-made smaller member of the family beside the slim network, found, trained and compared."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import figures, tiny_recipe

from penjing.core import Recipe, UsageError
from penjing.pipeline import _smaller, dry_run, shape
from penjing.report import table, verdict

RECIPE: dict[str, Any] = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "model_args": {"in_chans": 1},
    "weights": "none",
    "data": {"source": "builtin:digits", "splits": [256, 64, 200], "augment": "none"},
    "budget": "macs<=0.6x",
    "image_size": 16,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 1},
        "prune": {"criterion": "l2", "scope": "uniform", "calibration": 32},
        "recover": {"epochs": 1, "reconstruct": False},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def with_rival(source: str) -> Recipe:
    return Recipe.of(
        RECIPE | {"steps": {**RECIPE["steps"], "controls": {"scratch": False, "smaller": source}}}
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("rivals") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return out, shape(Recipe.of(RECIPE), out)


def test_a_smaller_member_gets_a_row_and_says_what_it_is(run: tuple[Path, dict[str, Any]]):
    out, metrics = run
    rows = {row["name"]: row for row in metrics["rows"]}
    assert list(rows) == ["base", "transferred", "slim", "control:smaller"]
    row = rows["control:smaller"]
    assert row["source"].startswith("timm:resnet")
    assert (row["pretrained"], row["weights"]) == (False, "none")
    assert row["macs"] < rows["transferred"]["macs"]
    assert set(rows["slim"]) - {"speedup"} <= set(row)
    beside = row["against_slim"]
    assert beside["low"] <= beside["difference"] <= beside["high"]
    assert beside["difference"] == pytest.approx(row["accuracy"] - rows["slim"]["accuracy"])
    assert metrics["winner"] == ("control:smaller" if beside["wins"] else "slim")
    assert row["source"] in verdict(metrics) or beside["difference"] < 0 or not beside["wins"]
    assert "control:smaller" in table(metrics).plain()
    seen = json.loads((out / "smaller.json").read_text())["seen"]
    timed = [one for one in seen if "time_share" in one]
    assert 1 <= len(timed) <= 9
    assert row["source"] in [one["source"] for one in timed]


def test_offline_is_said_and_the_rival_learns_as_long_as_the_slim_network(run: tuple[Path, dict[str, Any]]):
    out, _ = run
    assert "HF_HUB_OFFLINE" in json.loads((out / "smaller.json").read_text())["why"]
    found = figures(out)
    assert len(found["smaller:transfer"]["epochs"]) == len(found["transfer"]["epochs"])
    assert len(found["control:smaller"]["epochs"]) == len(found["recover"]["epochs"])


def test_a_named_rival_is_taken_and_a_broken_off_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe, out = with_rival("timm:resnet10t"), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(_smaller, "distil", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shape(recipe, out)
    before = (out / "steps" / "smaller-transfer.safetensors").read_bytes()
    metrics = shape(recipe, out, resume=True)
    assert (out / "steps" / "smaller-transfer.safetensors").read_bytes() == before
    assert metrics["rows"][-1]["source"] == "timm:resnet10t"
    assert not any("control:smaller" in note for note in metrics["notes"])


def test_what_cannot_be_a_rival_is_refused_before_anything_is_trained(tmp_path: Path):
    with pytest.raises(UsageError, match="resnet10x"):
        dry_run(with_rival("timm:resnet10x"), tmp_path / "run")


def test_a_dry_run_counts_the_rival(tmp_path: Path):
    seconds = dry_run(Recipe.of(RECIPE), tmp_path / "run")
    assert all(seconds[step] > 0 for step in ("smaller:choose", "smaller:transfer", "control:smaller"))
    assert not any("smaller" in step for step in dry_run(with_rival("none"), tmp_path / "run"))


def test_a_network_of_ones_own_has_no_family_and_the_run_says_so(tmp_path: Path):
    values = {key: value for key, value in RECIPE.items() if key not in ("model", "model_args", "weights")}
    recipe = tiny_recipe({**values, "image_size": 8}, tmp_path)
    metrics = shape(recipe, tmp_path / "run", trust=True)
    assert [row["name"] for row in metrics["rows"]] == ["base", "transferred", "slim"]
    (said,) = [note for note in metrics["notes"] if "control:smaller" in note]
    assert "network by itself" in said
    assert metrics["winner"] == "slim"


def test_a_transformer_is_rivalled_by_its_own_layers(tmp_path: Path):
    pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
    values = RECIPE | {"model": "hf:vit", "model_args": {**sizes, "image_size": 16, "patch_size": 4}}
    metrics = shape(Recipe.of(values | {"budget": "macs<=0.7x"}), tmp_path / "run")
    row = metrics["rows"][-1]
    assert row["name"] == "control:smaller"
    assert row["weights"].endswith("of the reference")
    assert figures(tmp_path / "run")["smaller:transfer"] == {}
    assert torch.isfinite(torch.tensor(row["accuracy"]))
