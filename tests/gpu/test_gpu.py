"""The whole way on a CUDA device; skipped where there is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

import penjing as pj
from penjing.core import Recipe
from penjing.measure import measure, speedup
from penjing.pipeline import certify_runs, shape
from penjing.runtimes import RUNTIMES

pytestmark = pytest.mark.gpu

NETWORK = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))

class Net(nn.Module):
    def __init__(self, classes=10, width=32):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width), nn.MaxPool2d(2), Block(width), Block(width))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))

def net(num_classes=10):
    return Net(num_classes)
"""
RECIPE = {
    "task": "image-classification",
    "device": "cuda",
    "image_size": 8,
    "margin": 5.0,
    "steps": {
        "transfer": {"epochs": 6, "probe_epochs": 1, "lr": 0.01},
        "prune": {"criterion": "obs", "round_to": 1, "calibration": 128},
        "recover": {"epochs": 3, "lr": 0.01},
        "controls": {"scratch": False},
        "measure": {"elsewhere": False, "repeats": 20, "rounds": 10, "batch_sizes": [8, 256]},
        "explain": {"examples": 16, "shown": 4},
        "stability": {"examples": 60},
    },
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "net.py").write_text(NETWORK)
    images, labels = load_digits(return_X_y=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "data" / str(label) / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.reshape(8, 8) * 15.9).astype(np.uint8)).save(place)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))


def small(width: int = 32) -> nn.Module:
    space: dict[str, Any] = {}
    exec(compile(NETWORK, "net", "exec"), space)
    torch.manual_seed(0)
    return space["Net"](width=width).eval()


def recipe(desk: Path, **options: Any) -> Recipe:
    given = {**RECIPE, "data": str(desk / "data"), "model": f"file:{desk / 'net.py'}:net", **options}
    return Recipe.of(given)


def test_pruning_on_the_device_is_pruning_on_the_cpu() -> None:
    x = torch.randn(2, 3, 16, 16)
    here, plan = pj.prune(small(), x, ratio=0.5)
    there, other = pj.prune(small().cuda(), x.cuda(), ratio=0.5)
    assert plan.removed == other.removed
    assert next(there.parameters()).is_cuda
    assert pj.verify(small().cuda(), there, other, x.cuda()).passed
    with torch.backends.cudnn.flags(allow_tf32=False, deterministic=True):
        assert torch.allclose(there(x.cuda()).cpu(), here(x), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_networks_are_pruned_and_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 16, 16, device="cuda", dtype=dtype)
    model = small().cuda().to(dtype)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert pj.verify(model, slim, plan, x).passed
    pj.save(tmp_path / "slim", slim, plan, source="file:net.py:net")
    again = pj.load(tmp_path / "slim", model=small())
    assert {p.dtype for p in again.parameters()} == {dtype}
    assert torch.equal(again.cuda()(x), slim(x))


def test_adjustments_are_found_and_made() -> None:
    x, model = torch.randn(2, 3, 16, 16, device="cuda"), small().cuda()
    found = [one for one in pj.adjustments(model, x) if one.edit is not None]
    assert {"drop", "low_rank"} & {one.kind for one in found}
    slim, plan = pj.adjust(model, x, [next(one.edit for one in found if one.kind == "fold_norm")])
    assert next(slim.parameters()).is_cuda
    assert pj.verify(model, slim, plan, x).passed


@pytest.mark.parametrize("runtime", ["eager", "compile"])
def test_times_are_taken_by_events(runtime: str) -> None:
    assert runtime in RUNTIMES
    x = torch.randn(64, 3, 32, 32)
    found = measure(small(), x, device="cuda", runtime=runtime, repeats=10)
    assert found.latency is not None
    assert found.latency.device.startswith("cuda:")
    assert 0 < found.latency.value < 1000


def test_a_wider_network_is_slower() -> None:
    x = torch.randn(256, 3, 32, 32)
    assert speedup(small(256), small(32), x, device="cuda", rounds=10).ratio > 1.5


def test_a_run_on_the_device_is_certified_from_its_file(desk: Path, tmp_path: Path) -> None:
    metrics = shape(recipe(desk, budget="macs<=0.6x"), tmp_path / "run", trust=True)
    rows = {row["name"]: row for row in metrics["rows"]}
    assert rows["slim"]["macs"] <= 0.6 * rows["transferred"]["macs"]
    assert rows["slim"]["latency_ms"]["device"].startswith("cuda:")
    assert rows["slim"]["accuracy"] > 0.9
    again = certify_runs([str(tmp_path / "run")], margin=5.0, trust=True, model=f"file:{desk / 'net.py'}:net")
    assert next(iter(again.values()))["file_fingerprint"] == metrics["certificate"]["file_fingerprint"]
    assert next(pj.load(tmp_path / "run" / "model", model=small()).parameters()).device.type == "cpu"


def test_a_run_in_half_precision_and_a_budget_of_time(desk: Path, tmp_path: Path) -> None:
    steps = {**RECIPE["steps"], "measure": {**RECIPE["steps"]["measure"], "batch_sizes": [512]}}
    steps |= {name: {**steps[name], "bf16": True} for name in ("transfer", "recover")}
    metrics = shape(recipe(desk, budget="latency<=0.8x", steps=steps), tmp_path / "run", trust=True)
    rows = {row["name"]: row for row in metrics["rows"]}
    assert rows["slim"]["latency_ms"]["median"] < rows["transferred"]["latency_ms"]["median"]
    assert rows["slim"]["accuracy"] > 0.9
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "finished"
