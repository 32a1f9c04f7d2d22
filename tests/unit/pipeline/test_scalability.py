"""Which places a run times its result in."""

from typing import Any

import pytest
import torch

from penjing.core import Recipe
from penjing.pipeline import _scalability
from penjing.pipeline._scalability import places
from penjing.runtimes import RUNTIMES

RECIPE = {
    "task": "image-classification",
    "model": "timm:resnet18",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
}


def told(**options: Any) -> list[str]:
    return [str(place) for place in places(Recipe.of({**RECIPE, **options}))]


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scalability.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    missing = {"openvino"}
    monkeypatch.setattr(
        _scalability.importlib.util, "find_spec", lambda name: None if name in missing else object()
    )


def test_other_batches_threads_and_installed_runtimes() -> None:
    assert told(steps={"measure": {"batch_sizes": [16]}}) == [
        "eager,cpu,batch=16,threads=2",
        "eager,cpu,batch=1,threads=2",
        "eager,cpu,batch=8,threads=2",
        "eager,cpu,batch=32,threads=2",
        "eager,cpu,batch=16,threads=1",
        "eager,cpu,batch=16,threads=4",
        "onnx,cpu,batch=16,threads=2",
    ]


def test_on_a_gpu_threads_stay_and_runtimes_of_the_cpu_are_there() -> None:
    found = told(device="cuda", steps={"measure": {"batch_sizes": [8]}})
    assert "onnx,cpu,batch=8,threads=2" in found
    assert {one for one in found if "cuda" in one} == {f"eager,cuda,batch={n},threads=2" for n in (1, 8, 32)}


def test_only_what_is_asked_for() -> None:
    quiet = {"measure": {"elsewhere": False, "batch_sizes": [8]}}
    assert told(steps=quiet) == []
    assert told(steps=quiet, runtime="onnx", also=["cuda", "threads=3", "eager,batch=2"]) == [
        "eager,cuda,batch=8,threads=2",
        "onnx,cpu,batch=8,threads=3",
        "eager,cpu,batch=2,threads=2",
    ]


def test_a_place_may_name_every_runtime_there_is() -> None:
    assert tuple(RUNTIMES) == Recipe.model_fields["runtime"].annotation.__args__  # type: ignore[union-attr]
