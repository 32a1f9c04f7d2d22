"""Reconstruction within a run: after every round's cut, towards the network that was cut, and told as it went."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core import Plan, Recipe
from penjing.pipeline import _learn as learn
from penjing.pipeline import shape
from penjing.pipeline._job import state_file
from penjing.recover import _rebuild as rebuilding

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 2, "probe_epochs": 1, "lr": 0.01},
        "prune": {"round_to": 1, "calibration": 128, "rounds": 2, "between": 1},
        "recover": {"epochs": 1, "lr": 0.01, "hidden": 0.0, "reconstruct_examples": 256},
        "controls": {"scratch": False, "random": True},
        "measure": {"repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}
State = Mapping[str, Tensor]


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    place = tmp_path_factory.mktemp("network") / "net.py"
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", place)
    return Recipe.of(RECIPE | {"model": f"file:{place}:tiny"})


@pytest.fixture(scope="module")
def seen() -> list[tuple[nn.Module, State, State]]:
    """What every reconstruction of the run was asked for: towards what, what its plan gives, what it began with."""
    return []


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory, seen: list[Any]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"

    def watch(slim: nn.Module, model: nn.Module, plan: Plan, *rest: Any, **options: Any) -> Any:
        seen.append((model, copied(pj.apply(model, plan)), copied(slim)))
        return rebuilding.rebuild(slim, model, plan, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learn, "rebuild", watch)
        shape(recipe, out, trust=True)
    return out


def figures(out: Path) -> dict[str, dict[str, Any]]:
    return {step["name"]: step["figures"] for step in json.loads((out / "run.json").read_text())["steps"]}


def stored(out: Path, step: str) -> State:
    from safetensors.torch import load_file

    return load_file(state_file(out, step))


def test_each_round_is_measured_against_the_network_it_cut(run: Path, seen: list[Any]):
    found = figures(run)
    towards = {"recover:1": "transfer", "recover": "recover:1", "control:random": "transfer"}
    assert {name: found[name]["reconstruct"]["towards"] for name in towards} == towards
    assert len(seen) == 3
    for (model, applied, given), (name, start) in zip(seen, towards.items(), strict=True):
        assert same(copied(model), stored(run, start)), name
        assert same(applied, given), name
    for name in towards:
        layers = found[name]["reconstruct"]["layers"]
        assert sum(layer["after"] < layer["before"] for layer in layers) >= 4, name
