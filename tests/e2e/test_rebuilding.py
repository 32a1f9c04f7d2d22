"""Reconstruction within a run: after every round's cut, towards the network that was cut, and told as it went."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import figures, tiny_recipe
from torch import Tensor, nn

import penjing as pj
from penjing.core import Plan, PlanError, Recipe
from penjing.pipeline import Event, shape
from penjing.pipeline import _learn as learn
from penjing.pipeline import _rebuilt as rebuilt
from penjing.pipeline._job import Inputs, Job, state_file
from penjing.pipeline._rounds import Round
from penjing.pipeline._run import reopen
from penjing.recover import _rebuild as rebuilding

RECIPE = {
    "task": "image-classification",
    "data": "builtin:digits",
    "budget": "macs<=0.5x",
    "image_size": 8,
    "steps": {
        "transfer": {"epochs": 2, "probe_epochs": 1, "lr": 0.01},
        "prune": {"criterion": "obs", "round_to": 1, "calibration": 128, "rounds": 2, "between": 1},
        "recover": {"epochs": 1, "lr": 0.01, "hidden": 0.0, "reconstruct_examples": 256},
        "controls": {"scratch": False, "random": True},
        "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [8]},
    },
}
LAST = Round(number=2, of=2)
State = Mapping[str, Tensor]


def copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def same(ours: State, theirs: State) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return tiny_recipe(RECIPE, tmp_path_factory.mktemp("network"))


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
        patch.setattr(rebuilt, "rebuild", watch)
        shape(recipe, out, trust=True)
    return out


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


Rebuild = Callable[..., tuple[dict[str, Any], list[str], bool]]


@pytest.fixture
def again(run: Path, recipe: Recipe) -> Rebuild:
    """The last round's reconstruction once more: its figures, its notes, and whether it changed the network."""

    def ask(when: bool | str) -> tuple[dict[str, Any], list[str], bool]:
        steps = {**RECIPE["steps"], "recover": {**RECIPE["steps"]["recover"], "reconstruct": when}}
        asked = Recipe.of(RECIPE | {"model": recipe.model, "steps": steps})
        heard: list[Event] = []
        job = Job(run=reopen(run, asked), inputs=Inputs(recipe=asked, trust=True), listen=heard.append)
        slim, told = job.slim("prune", "prune"), {}
        before = copied(slim)
        learn._rebuild(job, "recover", slim, LAST, job.plan("prune"), told)
        return told, [e.text for e in heard if e.kind == "note"], not same(copied(slim), before)

    return ask


def test_false_does_nothing_and_says_nothing(again: Rebuild):
    assert again(False) == ({}, [], False)


def test_true_keeps_it_and_tells_as_the_run_did(again: Rebuild, run: Path):
    told, notes, changed = again(True)
    told = told["reconstruct"]
    assert told["kept"]
    assert changed
    assert told["examples"] == 256
    assert notes == told["notes"]
    names = {layer["name"] for layer in told["layers"]}
    assert names == {n for n, t in stored(run, "prune").items() if t.dim() > 1}
    first = figures(run)["recover"]["reconstruct"]
    assert {**told, "kept": first["kept"]} == first


@pytest.mark.parametrize("better", [True, False])
def test_auto_keeps_what_the_selection_split_likes(
    again: Rebuild, monkeypatch: pytest.MonkeyPatch, better: bool
):
    scores = iter((1.0, 0.0) if better else (1.0, 1.0))
    monkeypatch.setattr(rebuilding, "score", lambda *_: next(scores))
    told, notes, changed = again("auto")
    assert told["reconstruct"]["kept"] is better
    assert changed is better
    assert ("reconstruction did not help and was taken back" in notes) is not better
    assert told["reconstruct"]["layers"]


def test_a_plan_that_does_not_fit_is_noted_in_auto_and_ends_the_run_where_asked(
    again: Rebuild, monkeypatch: pytest.MonkeyPatch
):
    class Turned(nn.Sequential):
        """The blocks in another order, under the same names."""

        def forward(self, x: Tensor) -> Tensor:
            for block in reversed(self):
                x = block(x)
            return x

    def other(job: Job, round: Round, plan: Plan) -> tuple[nn.Module, Plan]:
        model, own = cut_from(job, round, plan)
        model.get_submodule("blocks").__class__ = Turned
        return model, own

    cut_from = learn.cut_from
    monkeypatch.setattr(learn, "cut_from", other)
    told, notes, changed = again("auto")
    assert told["reconstruct"]["kept"] is False
    assert "different orders" in told["reconstruct"]["cause"]
    assert notes == [f"no reconstruction: {told['reconstruct']['cause']}"]
    assert not changed
    with pytest.raises(PlanError, match="different orders"):
        again(True)


def test_what_dropped_blocks_gave_is_made_up_for_before_units_go(recipe: Recipe, tmp_path: Path):
    steps = {**RECIPE["steps"], "trim": {"blocks": 1, "calibration": 64}, "controls": {"scratch": False}}
    steps |= {"prune": {"criterion": "obs", "round_to": 1, "calibration": 64}}
    given = RECIPE | {"model": recipe.model, "steps": steps, "budget": "macs<=0.7x"}
    asked = Recipe.of(given)
    shape(asked, tmp_path / "run", trust=True)
    found = figures(tmp_path / "run")
    told = found["trim"]["reconstruct"]
    assert found["trim"]["dropped"]
    assert told["kept"]
    assert told["after"]["accuracy"] > told["before"]["accuracy"]
    assert told["towards"] == "transfer"
    assert found["recover"]["reconstruct"]["towards"] == "trim"
    inputs = Inputs(recipe=asked, trust=True)
    job = Job(run=reopen(tmp_path / "run", asked), inputs=inputs, listen=lambda _: None)
    dropped = pj.apply(job.full("transfer"), job.plan("trim"))
    assert not same(copied(dropped), copied(job.slim("trim", "trim")))
