"""One run under torchrun with two processes (gloo) is the run of one process."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import figures, tiny_recipe

from penjing.core import Recipe
from penjing.pipeline import shape

RECIPE = {
    "task": "image-classification",
    "data": {"source": "builtin:digits", "splits": [250, 100, 100]},
    "budget": "macs<=0.5x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 1, "probe_epochs": 1, "lr": 0.01, "batch_size": 33, "optimizer": "sgd"},
        "prune": {"criterion": "l2", "scope": "global", "round_to": 1, "calibration": 64},
        "recover": {
            "epochs": 2,
            "lr": 0.01,
            "batch_size": 33,
            "reconstruct": False,
            "clip": 1.0,
            "optimizer": "sgd",
        },
        "controls": {"scratch": False, "random": True},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 3, "batch_sizes": [4]},
    },
}
# Sums in another order: 1e-7 a step, which some tens of steps of AdamW let grow. Of 100 examples one may flip.
LOSS, WEIGHTS, ACCURACY = 1e-3, 2e-3, 0.0101


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    folder = tmp_path_factory.mktemp("several")
    recipe: Recipe = tiny_recipe(RECIPE, folder)
    shape(recipe, folder / "one", trust=True)
    (folder / "recipe.yaml").write_text(
        recipe.to_yaml().replace(f"model: {recipe.model}\n", "").replace("model_args: {}\n", "")
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    words = ["shape", str(folder / "recipe.yaml"), "--model", recipe.model, "--out", str(folder / "two")]
    pair = [
        subprocess.Popen(
            [sys.executable, "-m", "penjing", *words],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate() for process in pair]
    assert [process.returncode for process in pair] == [0, 0], told
    return folder / "one", folder / "two", told[1][0]


def test_both_cut_the_same_and_learn_the_same(runs: tuple[Path, Path, str]):
    one, two, _ = runs
    assert (one / "plan.json").read_text() == (two / "plan.json").read_text()
    for step in ("transfer", "recover"):
        for alone, together in zip(figures(one)[step]["epochs"], figures(two)[step]["epochs"], strict=True):
            assert together["loss"] == pytest.approx(alone["loss"], abs=LOSS)
            assert together["selection_accuracy"] == pytest.approx(alone["selection_accuracy"], abs=ACCURACY)
    left, right = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(
            right[name], tensor, atol=WEIGHTS, rtol=WEIGHTS, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_second_process_says_and_writes_nothing(runs: tuple[Path, Path, str]):
    *both, said = runs
    two = both[1]
    assert said == ""
    names = [
        sorted(str(p.relative_to(run)) for p in run.rglob("*") if "tensorboard" not in p.parts)
        for run in both
    ]
    assert names[0] == names[1]
    curves = [sorted(p.name for p in (run / "tensorboard").iterdir()) for run in both]
    assert curves[0] == curves[1]
    assert all(
        len(list(folder.iterdir())) == 1
        for folder in (two / "tensorboard").iterdir()
        if folder.name != "result"
    )
    rows = json.loads((two / "metrics.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["base", "transferred", "slim", "control:random"]
