"""Every recipe for texts and sounds from start to end, on small stand-ins for its packages."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import standins
import torch

from penjing.core import Recipe, read_yaml, reads_from_json
from penjing.export import load, read_structure
from penjing.pipeline import shape
from penjing.recover import call
from penjing.tasks import example_of

pytest.importorskip("soundfile", reason="needs penjing[audio]")
pytestmark = pytest.mark.slow
RECIPES = Path(__file__).parents[2] / "recipes"
SEQUENCES = sorted(
    path.stem for path in RECIPES.glob("*.yaml") if read_yaml(path)["task"] != "image-classification"
)
QUICK: dict[str, Any] = {
    "transfer": {"epochs": 1, "probe_epochs": 1},
    "choose": {"on": False},
    "prune": {"round_to": 1, "calibration": 32},
    "recover": {"epochs": 1},
    "controls": {"scratch": False, "smaller": "none"},
    "measure": {"elsewhere": False, "repeats": 3, "rounds": 5, "batch_sizes": [4]},
}


@pytest.fixture(scope="module", autouse=True)
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("packages")
    standins.write_all(folder)
    rooms = (
        "sources._builtin_models",
        "tasks._sets_texts",
        "tasks._sets_texts_tagged",
        "tasks._sets_sounds",
    )
    with pytest.MonkeyPatch.context() as patch:
        for room in rooms:
            patch.setattr(f"penjing.{room}.fetched", lambda name: folder / name)
        patch.setenv("PENJING_CACHE", str(folder))
        patch.setattr("penjing.tasks._sound_synthesis._made", standins.said)
        patch.setattr(
            "penjing.tasks._sets_sounds_synthetic.VOICES", ("Andy", "Annie", "f1", "f2", "m1", "m2")
        )
        patch.setattr("penjing.tasks._sets_sounds_synthetic.ACCENTS", ("en",))
        patch.setattr("penjing.tasks._sets_sounds_synthetic.KEYWORDS", ("yes", "no", "stop", "go"))
        yield


def quick(name: str) -> Recipe:
    """The recipe with one epoch of everything, and splits that suit few examples."""
    values = dict(read_yaml(RECIPES / f"{name}.yaml"))
    steps = values.get("steps", {})
    values["steps"] = {step: {**steps.get(step, {}), **options} for step, options in QUICK.items()}
    data = values["data"] if isinstance(values["data"], dict) else {"source": values["data"]}
    values["data"] = {key: value for key, value in data.items() if key != "splits"}
    return Recipe.of(values)


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_recipe_runs_to_a_network_that_opens_alone(name: str, tmp_path: Path) -> None:
    recipe = quick(name)
    metrics = shape(recipe, tmp_path / "run")
    rows = {row["name"]: row for row in metrics["rows"]}
    assert list(rows) == ["base", "transferred", "slim"]
    limit = float(recipe.budget.removeprefix("macs<=").removesuffix("x"))
    assert rows["slim"]["macs"] <= limit * rows["transferred"]["macs"]
    headline = metrics["headline"]["metric"]
    assert all(rows[row][headline] >= 0 for row in ("transferred", "slim"))
    opened, told = load(tmp_path / "run" / "model"), read_structure(tmp_path / "run" / "model")
    reads = reads_from_json(told["preprocessing"], "here")
    with torch.no_grad():
        answer = call(opened, example_of(reads, 2))
    logits = answer if isinstance(answer, torch.Tensor) else answer["logits"]
    assert logits.shape[-1] == len(told["labels"])
    assert logits.isfinite().all()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "finished"


def test_every_recipe_is_a_case_of_the_benchmark() -> None:
    from benchmarks.tasks import CASES

    assert {case.recipe for case in CASES} == set(SEQUENCES)


def test_evenly_cut_neurons_also_open_in_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    values = quick("trec-minilm").model_dump(mode="json")
    values["steps"]["prune"] |= {"scope": "uniform", "granularity": ["neuron"], "round_to": 32}
    values["budget"] = "macs<=0.8x"
    run = tmp_path / "run"
    shape(Recipe.of(values), run)
    steps = {step["name"]: step["figures"] for step in json.loads((run / "run.json").read_text())["steps"]}
    assert steps["save"]["from_pretrained"] == "export/transformers"
    encoder = transformers.AutoModel.from_pretrained(run / "export" / "transformers")
    assert encoder.config.intermediate_size < standins.SIZES["intermediate_size"]
    tokens = transformers.AutoTokenizer.from_pretrained(run / "export" / "transformers")("how far")
    assert torch.isfinite(encoder(**{k: torch.tensor([v]) for k, v in tokens.items()})[0]).all()
