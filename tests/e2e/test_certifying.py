"""Certificates of whole runs: on the file that was handed over, on fresh examples, and where none may be given."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tiny_runs import tiny_recipe

import penjing as pj
from penjing.cli import main
from penjing.core import ArtifactError, DataError, Recipe, RunError, UsageError
from penjing.pipeline import Event, certify_runs, dry_run, shape
from penjing.report import certificate_lines

RECIPE = {
    "task": "image-classification",
    "budget": "macs<=0.6x",
    "image_size": 8,
    "margin": 3.0,
    "steps": {
        "transfer": {"epochs": 8, "probe_epochs": 1, "lr": 0.01},
        "prune": {"criterion": "obs", "scope": "global", "round_to": 1, "calibration": 128},
        "recover": {"epochs": 4, "lr": 0.01},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [8]},
    },
}


def write_pictures(folder: Path, numbers: Any) -> Path:
    """Handwritten digits as files in folders by class."""
    images, labels = load_digits(return_X_y=True)
    for number in numbers:
        place = folder / str(labels[number]) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((images[number].reshape(8, 8) * 15.9).astype(np.uint8)).save(place)
    return folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    write_pictures(folder / "data", range(1200))
    write_pictures(folder / "fresh", range(1200, 1797))
    return folder


def recipe_for(desk: Path, **options: Any) -> Recipe:
    return tiny_recipe({**RECIPE, "data": str(desk / "data"), **options}, desk)


@pytest.fixture(scope="module")
def told() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def run(desk: Path, told: list[Event], tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENJING_CACHE", str(tmp_path_factory.mktemp("cache")))
        metrics = shape(recipe_for(desk), desk / "run", trust=True, listen=told.append)
    assert metrics["certificate"] == json.loads((desk / "run" / "certificate.json").read_text())
    return desk / "run"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))


def model_of(desk: Path) -> str:
    return f"file:{desk / 'net.py'}:tiny"


def test_the_certificate_speaks_of_the_file_and_counts_what_the_predictions_say(run: Path) -> None:
    found = json.loads((run / "certificate.json").read_text())
    assert found["file"]["path"] == "model/model.safetensors"
    weights = (run / "model" / "model.safetensors").read_bytes()
    assert found["file_fingerprint"] == found["file"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert found["unlike_pytorch"] == 0
    table = pyarrow.parquet.read_table(run / "predictions.parquet").to_pydict()
    label, reference, slim = (np.array(table[name]) for name in ("label", "reference", "slim"))
    again = pj.certify(reference == label, slim == label, 0.03)
    kept = ("verdict", "n", "b", "c", "statistic", "critical", "bound", "power", "examples_needed")
    for name in kept if not found["classes"]["harmed"] + found["slices"]["harmed"] else kept[1:]:
        assert found[name] == getattr(again, name)
    assert found["flips"]["negative"] == found["b"]
    inputs = json.loads((run / "run.json").read_text())["inputs"]
    assert found["data_fingerprint"] == inputs["certification examples"]
    assert {part["name"] for part in found["classes"]["parts"]} == set("0123456789")
    assert any(part["name"].startswith("brightness") for part in found["slices"]["parts"])


def test_what_the_examples_can_show_is_told_before_anything_is_compressed(
    run: Path, told: list[Event]
) -> None:
    notes = [event.text for event in told if event.kind == "note"]
    assert any("certification examples show a network as good as the reference" in note for note in notes)
    first = next(i for i, event in enumerate(told) if event.kind == "start" and event.step == "prune")
    assert any(event.kind == "note" and "80% probability" in event.text for event in told[:first])


def test_the_card_says_what_is_certified(run: Path) -> None:
    card = (run / "model" / "README.md").read_text()
    found = json.loads((run / "certificate.json").read_text())
    assert found["verdict"].capitalize() in card
    assert found["file"]["sha256"][:16] in card


def test_a_run_is_certified_anew_and_on_examples_it_has_not_seen(run: Path, desk: Path) -> None:
    own = certify_runs([str(run)], margin=3.0, trust=True, model=model_of(desk))[str(run)]
    first = json.loads((run / "certificate.json").read_text())
    assert own["split"] == "certification"
    assert own["notes"] == []
    for name in ("verdict", "n", "b", "c", "bound", "data_fingerprint", "file_fingerprint"):
        assert own[name] == first[name]
    fresh = certify_runs([str(run)], margin=3.0, data=str(desk / "fresh"), trust=True, model=model_of(desk))
    found = fresh[str(run)]
    assert (found["split"], found["n"]) == ("all", 597)
    assert found["data_fingerprint"] != own["data_fingerprint"]
    assert json.loads(Path(found["path"]).read_text())["verdict"] == found["verdict"]


def test_examples_that_the_run_learnt_from_cannot_certify_it(run: Path, desk: Path, tmp_path: Path) -> None:
    mixed = write_pictures(tmp_path / "mixed", [*range(1200, 1500), *range(30)])
    with pytest.raises(DataError, match=r"of the 330 examples of .* are among those that .* learnt from"):
        certify_runs([str(run)], margin=3.0, data=str(mixed), trust=True, model=model_of(desk))


def test_pictures_that_were_only_saved_anew_are_known_again(run: Path, desk: Path, tmp_path: Path) -> None:
    again = write_pictures(tmp_path / "again", range(1200, 1500))
    for file in sorted((desk / "data").rglob("*.png"))[:40]:
        Image.open(file).convert("RGB").save(again / file.parent.name / f"{file.stem}.bmp")
    with pytest.raises(DataError, match=r"of the 340 examples of .* are among those that .* learnt from"):
        certify_runs([str(run)], margin=3.0, data=str(again), trust=True, model=model_of(desk))


def test_copies_among_fresh_examples_are_told(run: Path, desk: Path, tmp_path: Path) -> None:
    padded = write_pictures(tmp_path / "padded", range(1200, 1500))
    for file in sorted(padded.rglob("*.png"))[:100]:
        Image.open(file).save(file.with_suffix(".bmp"))
    found = certify_runs([str(run)], margin=3.0, data=str(padded), trust=True, model=model_of(desk))[str(run)]
    assert (found["n"], found["copies"]) == (400, 100)
    assert any("100 of the 400 examples are copies" in line for line in certificate_lines(found))


def test_certificates_of_several_margins_are_kept_beside_each_other(run: Path, desk: Path) -> None:
    paths = set()
    for margin in (2.0, 4.0):
        found = certify_runs([str(run)], margin=margin, trust=True, model=model_of(desk))[str(run)]
        assert json.loads(Path(found["path"]).read_text())["margin"] == margin / 100
        paths.add(found["path"])
    assert len(paths) == 2


def test_data_with_other_classes_is_refused_by_name(run: Path, desk: Path, tmp_path: Path) -> None:
    other = write_pictures(tmp_path / "other", range(1200, 1500))
    (other / "3").rename(other / "drei\x1b[31m")
    with pytest.raises(UsageError, match=r"lacks '3' and has besides 'drei") as told:
        certify_runs([str(run)], margin=3.0, data=str(other), trust=True, model=model_of(desk))
    assert "\x1b" not in str(told.value)


def test_other_data_to_judge_on_is_looked_at_before_anything_is_trained(desk: Path, tmp_path: Path) -> None:
    recipe = recipe_for(desk, steps={**RECIPE["steps"], "stability": {"data": str(tmp_path / "nowhere")}})
    with pytest.raises(UsageError, match=r"steps\.stability\.data"):
        dry_run(recipe, tmp_path / "run", trust=True)
    with pytest.raises(UsageError, match=r"steps\.stability\.data"):
        shape(recipe, tmp_path / "run", trust=True)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_another_file_on_the_same_examples_is_counted(run: Path, desk: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    recipe = recipe_for(desk, budget="macs<=0.4x")
    shape(recipe, second, trust=True)
    names = [str(run), str(second)]
    found = certify_runs(names, margin=3.0, trust=True, model=model_of(desk))
    assert list(found) == names  # the larger file first
    assert "1 other file" in found[str(run)]["notes"][-1]
    if found[str(run)]["verdict"] != "certified":
        assert "comes after" in found[str(second)]["why"]


def test_the_exit_code_says_whether_it_is_certified(
    run: Path, desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def code(*arguments: str) -> Any:
        monkeypatch.setattr("sys.argv", ["penjing", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        return left.value.code

    given = ("certify", str(run), "--model", model_of(desk))
    assert code(*given, "--margin", "20") == 0
    assert "certified: it loses at most" in capsys.readouterr().out
    assert code(*given, "--margin", "0.1", "--json") == 3
    told = json.loads(capsys.readouterr().out)[str(run)]
    assert told["verdict"] == "cannot certify"
    assert told["examples_needed"] > told["n"]
    assert code("certify", str(desk / "data"), "--margin", "1") == 2
    assert "holds no run" in capsys.readouterr().err
    assert code(*given, "--margin", "1", "--alpha", "0.7") == 2
    assert "alpha is 0.7: it is the risk" in capsys.readouterr().err
    assert code(*given, "--margin", "-1") == 2
    assert "margin" in capsys.readouterr().err


def test_torn_files_and_unfinished_runs_are_refused(run: Path, desk: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(run, torn)
    weights = torn / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises((RunError, ArtifactError)):
        certify_runs([str(torn)], margin=3.0, trust=True, model=model_of(desk))
    with pytest.raises(UsageError, match="named twice"):
        certify_runs([str(run), f"{run}/../{run.name}"], margin=3.0, trust=True, model=model_of(desk))


def test_the_file_of_another_runtime_is_the_one_that_is_certified(desk: Path, tmp_path: Path) -> None:
    metrics = shape(recipe_for(desk, runtime="onnx", margin=0.2), tmp_path / "onnx", trust=True)
    found = metrics["certificate"]
    assert found["verdict"] == "cannot certify"
    assert found["file"]["runtime"] == "onnx"
    assert found["file"]["path"] == "export/model.onnx"
    content = (tmp_path / "onnx" / "export" / "model.onnx").read_bytes()
    assert found["file_fingerprint"] == hashlib.sha256(content).hexdigest()
    again = certify_runs([str(tmp_path / "onnx")], margin=0.2, trust=True, model=model_of(desk))
    assert next(iter(again.values()))["b"] == found["b"]


def test_without_a_margin_there_is_no_certificate(desk: Path, tmp_path: Path) -> None:
    metrics = shape(recipe_for(desk, margin=None), tmp_path / "run", trust=True)
    assert "certificate" not in metrics
    assert not (tmp_path / "run" / "certificate.json").exists()
