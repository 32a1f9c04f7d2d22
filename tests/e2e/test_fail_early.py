"""What cannot work fails before anything is trained, in a dry run as in a real one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from penjing.core import ArtifactError, BudgetError, PenjingError, Recipe, RunError, SourceError, UsageError
from penjing.export import save
from penjing.pipeline import Event, dry_run, inspect, shape
from penjing.search import prune
from penjing.sources import load_source

NET = """
from torch import nn
from tiny import Tiny


class Wrapped(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.body, self.how = Tiny(), how

    def forward(self, x):
        y = self.body(x)
        return {"out": y} if self.how == "dict" else (y, x)


def as_dict():
    return Wrapped("dict")


def as_tuple():
    return Wrapped("tuple")


def tiny():
    return Tiny()
"""
STEPS = {
    "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
    "prune": {"criterion": "l2", "round_to": 1},
    "recover": {"epochs": 1, "lr": 0.01},
    "controls": {"scratch": False, "smaller": "none"},
    "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [2]},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", tmp_path / "tiny.py")
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    save_file({"stem.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    source = load_source("torchvision:squeezenet1_1", num_classes=3)
    slim, plan = prune(source.model, torch.randn(1, 3, 32, 32), ratio=0.5)
    frame = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    save(tmp_path / "saved", slim, plan, source.source, source.args, labels="abc", preprocessing=frame)
    return tmp_path


def _recipe(**change: object) -> Recipe:
    values = {
        "task": "image-classification",
        "model": "file:net.py:tiny",
        "data": "builtin:digits",
        "budget": "macs<=0.6x",
        "image_size": 8,
        "steps": STEPS,
    }
    return Recipe.of(values | change)


WRONG = {
    "teacher unknown": ({"teacher": "timm:resnet99x"}, SourceError, "resnet99x"),
    "teacher missing": ({"teacher": "nowhere"}, SourceError, "nowhere"),
    "teacher with other classes": ({"teacher": "saved"}, SourceError, "knows the classes a, b, c"),
    "teacher's weights": ({"teacher": "file:net.py:tiny", "teacher_weights": "no.pt"}, SourceError, "no.pt"),
    "weights": ({"weights": "other.safetensors"}, SourceError, "do not fit"),
    "budget": (
        {"budget": "macs<=10"},
        BudgetError,
        r"^The budget macs<=10 cannot be met: the nearest that can is macs<=\d+ \(.*x\)\. Fix: raise the budget, or "
        r"set steps\.prune\.scope to uniform .*, or drop residual blocks first \(steps\.trim\.blocks\) "
        r"or adjust components \(steps\.adjust\.edits\)$",
    ),
    "budget after trim": (
        {"budget": "macs<=10", "steps": STEPS | {"trim": {"blocks": 1}}},
        BudgetError,
        "nearest.*drop more blocks first",
    ),
    "budget met": ({"budget": "macs<=1x"}, UsageError, "holds already"),
    "dict": ({"model": "file:net.py:as_dict"}, SourceError, "answers with a dict.*Fix"),
    "tuple": ({"model": "file:net.py:as_tuple"}, SourceError, "answers with a tuple.*Fix"),
    "size": (
        {"model": "timm:vit_tiny_patch16_224", "weights": "none", "image_size": 32},
        SourceError,
        "pictures of 3x32x32.*--image-size",
    ),
    "protect": (
        {"steps": STEPS | {"prune": {"protect": ["nothing.*"]}, "trim": {"blocks": 1}}},
        UsageError,
        r"nothing\.\*",
    ),
    "criterion": ({"steps": STEPS | {"prune": {"criterion": "l3"}}}, PenjingError, "l3"),
    "loss": ({"steps": STEPS | {"recover": {"loss": "kll"}}}, PenjingError, "kll"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_fails_before_training(place: Path, case: str):
    change, kind, words = WRONG[case]
    with pytest.raises(kind, match=words) as dry:
        dry_run(_recipe(**change), "run", trust=True)
    assert not (place / "run").exists()
    with pytest.raises(kind, match=words) as real:
        shape(_recipe(**change), "run", trust=True)
    assert dry.value.exit_code == real.value.exit_code
    if (place / "run").exists():
        ledger = json.loads((place / "run" / "run.json").read_text())
        assert {record["state"] for record in ledger["steps"]} == {"pending"}


def test_a_dry_run_refuses_the_folders_that_a_run_refuses(place: Path):
    with pytest.raises(RunError, match="cannot be written"):
        dry_run(_recipe(), place / "net.py" / "run", trust=True)
    (place / "full").mkdir()
    (place / "full" / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="holds no run"):
        dry_run(_recipe(), place / "full", trust=True)
    assert next(iter(dry_run(_recipe(), place / "run", trust=True))) == "base"


@pytest.mark.parametrize("source", ["file:net.py:as_dict", "timm:vit_tiny_patch16_224"])
def test_inspect_says_so_too(place: Path, source: str):
    with pytest.raises(SourceError, match="Fix"):
        inspect(source, image_size=32, trust=True)


def test_a_saved_teacher_made_from_other_code_is_refused(place: Path):
    source = load_source("file:net.py:tiny", trust_files=True)
    slim, plan = prune(source.model, torch.randn(1, 3, 8, 8), ratio=0.5)
    save(place / "coded", slim, plan, "file:elsewhere.py:tiny", {})
    with pytest.raises((ArtifactError, UsageError), match="elsewhere"):
        dry_run(_recipe(teacher="coded"), "run", trust=True)


def test_blocks_that_cannot_go_are_told(place: Path):
    events: list[Event] = []
    recipe = _recipe(budget="macs<=0.3x", steps=STEPS | {"trim": {"blocks": 5, "calibration": 8}})
    metrics = shape(recipe, "run", trust=True, listen=events.append)
    record = json.loads((place / "run" / "run.json").read_text())["steps"][2]
    assert record["figures"]["asked"] == 5
    assert len(record["figures"]["candidates"]) == 3
    assert len(record["figures"]["dropped"]) == 3
    assert record["figures"]["stopped"]
    told = [event for event in events if event.kind == "note" and "dropped 3 of 5 blocks" in event.text]
    assert [event.step for event in told] == ["trim", ""]
    assert metrics["notes"][0] == told[0].text
    assert "changes no answer" in metrics["notes"][1]
