"""A run goes on only from what it was started with; steps that have not begun may change."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from penjing.core import Recipe, RunError, TrainingError
from penjing.pipeline import shape
from penjing.sources import load_source

STEPS = {
    "transfer": {"epochs": 1, "probe_epochs": 0, "lr": 0.01},
    "prune": {"criterion": "l2", "round_to": 1},
    "recover": {"epochs": 1, "lr": 0.01},
    "controls": {"scratch": False},
    "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [2]},
}


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A network in a file, its weights, and forty pictures in two classes."""
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", tmp_path / "net.py")
    model = load_source(f"file:{tmp_path}/net.py:tiny", trust_files=True).model
    save_file(model.state_dict(), tmp_path / "start.safetensors")
    generator = torch.Generator().manual_seed(0)
    for label in ("bright", "dark"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for number in range(20):
            pixels = torch.randint(0, 128, (8, 8, 3), generator=generator, dtype=torch.uint8)
            picture = Image.fromarray((pixels + (127 if label == "bright" else 0)).numpy())
            picture.save(tmp_path / "pictures" / label / f"{number}.png")
    return tmp_path


def _recipe(desk: Path, **change: object) -> Recipe:
    values = {
        "task": "image-classification",
        "model": f"file:{desk}/net.py:tiny",
        "weights": str(desk / "start.safetensors"),
        "data": str(desk / "pictures"),
        "budget": "macs<=0.6x",
        "image_size": 8,
        "steps": STEPS,
    }
    return Recipe.of(values | change)


def _stopped(desk: Path) -> Path:
    """A run that failed in its recovery."""
    with pytest.raises(TrainingError):
        shape(_recipe(desk, steps=STEPS | {"recover": {"epochs": 1, "lr": 1e30}}), desk / "run", trust=True)
    return desk / "run"


def _done(run: Path) -> list[str]:
    steps = json.loads((run / "run.json").read_text())["steps"]
    return [record["name"] for record in steps if record["state"] == "finished"]


def _change(desk: Path, what: str) -> None:
    if what == "examples":
        shutil.copy(desk / "pictures" / "dark" / "0.png", desk / "pictures" / "dark" / "new.png")
        next((desk / "pictures" / "bright").iterdir()).unlink()
    elif what == "weights":
        path = desk / "start.safetensors"
        save_file({key: value * 2 for key, value in load_file(path).items()}, path)
    else:
        (desk / "net.py").write_text((desk / "net.py").read_text().replace("mean((2, 3))", "amax((2, 3))"))


@pytest.mark.parametrize("what", ["examples", "weights", "code"])
def test_changed_inputs_are_refused_before_anything_is_skipped(desk: Path, what: str):
    run = _stopped(desk)
    _change(desk, what)
    before = (run / "run.json").read_bytes()
    with pytest.raises(RunError, match=rf"not those it was started with.*{what}.*--out"):
        shape(_recipe(desk), run, resume=True, trust=True)
    assert (run / "run.json").read_bytes() == before


def test_a_later_step_takes_new_options_and_a_finished_one_does_not(desk: Path):
    run = _stopped(desk)
    assert _done(run) == ["base", "transfer", "prune"]
    longer = _recipe(desk, steps=STEPS | {"transfer": {"epochs": 2}})
    with pytest.raises(RunError, match=r"steps that have finished \(transfer\)"):
        shape(longer, run, resume=True, trust=True)
    with pytest.raises(RunError, match=r"finished \(prune\).*budget"):
        shape(_recipe(desk, budget="macs<=0.5x"), run, resume=True, trust=True)
    mended = _recipe(desk)
    with pytest.raises(RunError, match="another run"):
        shape(mended, run, trust=True)
    shape(mended, run, resume=True, trust=True)
    assert _done(run) == [
        "base",
        "transfer",
        "prune",
        "recover",
        "fold",
        "measure",
        "save",
        "stability",
        "explain",
    ]
    assert "lr: 0.01" in (run / "recipe.yaml").read_text()
    assert "1.0e+30" not in (run / "recipe.yaml").read_text()
    _change(desk, "examples")
    with pytest.raises(RunError, match="not those it was started with"):
        shape(mended, run, trust=True)


def test_a_folder_in_which_nothing_finished_is_taken_over(desk: Path):
    with pytest.raises(Exception, match="pictures"):
        shape(_recipe(desk, data=str(desk / "no-pictures")), desk / "run", trust=True)
    shape(_recipe(desk), desk / "run", trust=True)
    assert "save" in _done(desk / "run")


@pytest.mark.parametrize("place", ["file", "proc"])
def test_a_folder_that_cannot_be_written_is_refused(desk: Path, place: str):
    out = desk / "net.py" / "run" if place == "file" else Path("/proc/penjing/run")
    with pytest.raises(RunError, match=r"cannot be written.*--out"):
        shape(_recipe(desk), out, trust=True)
