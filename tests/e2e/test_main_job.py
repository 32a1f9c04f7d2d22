"""The main job with everything switched on, in this process; and what it does when training fails."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from penjing.core import Recipe, RunError, TrainingError
from penjing.export import load, read_structure
from penjing.pipeline import Event, shape
from penjing.report import scalability_table, scalability_why
from penjing.sources import load_source
from penjing.tasks import image_data

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.6x",
    "image_size": 8,
    "also": ["threads=2", "batch=3,cpu", "cuda:7"],
    "steps": {
        "transfer": {"epochs": 2, "probe_epochs": 1, "lr": 0.01},
        "distil": {"epochs": 1, "lr": 0.01, "guide": "teacher-guided"},
        "trim": {"blocks": 1, "calibration": 128},
        "prune": {"criterion": "taylor", "scope": "global", "round_to": 1, "calibration": 128},
        "recover": {"epochs": 1, "lr": 0.01},
        "sparsify": {"share": 0.5, "epochs": 2, "lr": 0.01},
        "controls": {"random": True},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("network") / "net.py"
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", place)
    return place


@pytest.fixture(scope="module")
def run(network: Path) -> tuple[Path, dict, list[Event]]:
    source = f"file:{network}:tiny"
    recipe, events = Recipe.of(RECIPE | {"model": source, "teacher": source}), []
    out = network.parent / "run"
    return out, shape(recipe, out, trust=True, listen=events.append), events


def test_every_row_is_there_and_the_reference_is_the_distilled(run: tuple[Path, dict, list[Event]]):
    _, metrics, _ = run
    rows = {row["name"]: row for row in metrics["rows"]}
    assert list(rows) == ["base", "transferred", "distilled", "slim", "control:scratch", "control:random"]
    assert metrics["reference"] == "distilled"
    assert rows["slim"]["macs"] <= 0.6 * rows["distilled"]["macs"]
    assert rows["control:random"]["macs"] <= 0.6 * rows["distilled"]["macs"]
    assert rows["distilled"]["macs_ratio"] == 1


def test_places_asked_for_are_timed_or_say_why_not(run: tuple[Path, dict, list[Event]]):
    _, metrics, _ = run
    threads, batch, device = metrics["scalability"]
    assert (threads["threads"], threads["batch_size"], threads["runtime"]) == (2, 8, "eager")
    assert (batch["threads"], batch["batch_size"]) == (torch.get_num_threads(), 3)
    for row in (threads, batch):
        assert row["a_ms"]["threads"] == row["threads"]
        assert row["b_ms"]["batch_size"] == row["batch_size"]
        assert row["low"] <= row["ratio"] <= row["high"]
        assert row["ratio"] == pytest.approx(row["a_ms"]["median"] / row["b_ms"]["median"])
    assert "ratio" not in device
    assert "cuda:7" in device["why"]
    text = scalability_table(metrics).plain().splitlines()
    assert len(text) == 6
    assert "not timed" in text[-1]
    assert scalability_why(metrics) == (f"eager,cuda:7,batch=8,threads=1: {device['why']}",)


def test_zeros_are_in_the_artifact_and_reported_as_zeros(run: tuple[Path, dict, list[Event]], network: Path):
    out, metrics, _ = run
    told = metrics["sparsity"]
    assert all(share == pytest.approx(0.5, abs=0.05) for share in told["by_weight"].values())
    assert told["zipped_bytes"] < told["dense"]["zipped_bytes"]
    assert told["time"]["batch_8"]["ratio"] > 0
    loaded = load(out / "model", model=load_source(f"file:{network}:tiny", trust_files=True).model)
    weights = [p for p in loaded.parameters() if p.dim() > 1]
    assert sum(int((p == 0).sum()) for p in weights) == pytest.approx(
        0.5 * sum(p.numel() for p in weights), rel=0.05
    )


def test_a_block_is_gone_and_the_plan_says_which(run: tuple[Path, dict, list[Event]]):
    out, _, _ = run
    plan = json.loads((out / "plan.json").read_text())
    dropped = [edit["module"] for edit in plan["edits"] if edit["kind"] == "drop_block"]
    assert len(dropped) == 1
    assert dropped[0].startswith("blocks.")
    assert any(edit["kind"] == "remove_units" for edit in plan["edits"])


def test_the_saved_network_gives_the_answers_that_were_measured(
    run: tuple[Path, dict, list[Event]], network: Path
):
    out, _, _ = run
    parquet = pytest.importorskip("pyarrow.parquet")
    original = load_source(f"file:{network}:tiny", trust_files=True).model
    slim, told = load(out / "model", model=original), read_structure(out / "model")
    frame = told["preprocessing"]
    data = image_data("builtin:digits", size=tuple(frame["input_size"]), mean=frame["mean"], std=frame["std"])
    with torch.no_grad():
        answers = torch.cat([slim(images).argmax(1) for images, _ in data.batches("certification", 256)])
    assert parquet.read_table(out / "predictions.parquet")["slim"].to_pylist() == answers.tolist()
    assert tuple(told["labels"]) == data.labels


def test_events_tell_the_plan_every_step_and_progress(run: tuple[Path, dict, list[Event]]):
    _, _, events = run
    assert events[0].kind == "plan"
    steps = list(events[0].figures)
    assert [event.step for event in events if event.kind == "start"] == steps
    assert [event.step for event in events if event.kind == "finish"] == steps
    trained = {event.step for event in events if event.kind == "progress" and "loss" in event.figures}
    assert trained >= {"transfer", "teacher", "distil", "recover", "control:scratch", "control:random"}


def test_the_card_and_the_ledger_speak_of_the_same_run(run: tuple[Path, dict, list[Event]]):
    out, metrics, _ = run
    ledger = json.loads((out / "run.json").read_text())
    assert all(record["state"] == "finished" for record in ledger["steps"])
    files = next(record["files"] for record in ledger["steps"] if record["name"] == "save")
    assert "model/model.safetensors" in files
    assert "model/README.md" not in files
    assert f"{metrics['rows'][3]['params']:,}" in (out / "model" / "README.md").read_text()


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_done(network: Path, tmp_path: Path):
    steps = {**RECIPE["steps"], "recover": {"epochs": 1, "lr": 1e30}, "controls": {"scratch": False}}
    recipe = Recipe.of(RECIPE | {"model": f"file:{network}:tiny", "steps": steps})
    with pytest.raises(TrainingError):
        shape(recipe, tmp_path / "run", trust=True)
    ledger = json.loads((tmp_path / "run" / "run.json").read_text())
    assert ledger["state"] == "stopped"
    assert [record["state"] for record in ledger["steps"]][:4] == ["finished"] * 4
    assert ledger["steps"][4]["state"] == "pending"
    with pytest.raises(RunError, match="--resume"):
        shape(recipe, tmp_path / "run", trust=True)


def test_certification_pictures_are_seen_once_all_is_decided(network: Path, tmp_path: Path, monkeypatch):
    from penjing.tasks import Labelled

    seen, now = [], []
    limited = Labelled._limited

    def watched(self, split, *arguments):
        if split == "certification":
            seen.append(now[-1])
        return limited(self, split, *arguments)

    monkeypatch.setattr(Labelled, "_limited", watched)
    steps = {**RECIPE["steps"], "controls": {"scratch": False}, "trim": {"blocks": 0}}
    recipe = Recipe.of(RECIPE | {"model": f"file:{network}:tiny", "steps": steps})
    shape(recipe, tmp_path / "run", trust=True, listen=lambda event: now.append(event.step))
    assert set(seen) <= {"measure", "save", "stability", "explain"}
