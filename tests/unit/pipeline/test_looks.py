"""`inspect` and `compare`, on a saved network and on its source."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from penjing.cli import main
from penjing.core import ArtifactError, RunError, UsageError
from penjing.export import save
from penjing.pipeline import compare, inspect
from penjing.search import prune
from penjing.sources import load_source

SOURCE = "torchvision:squeezenet1_1"
DIGITS = tuple(str(digit) for digit in range(10))
FRAME = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The same network cut lightly and deeply, and one that knows other classes."""
    place = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    made = {}
    for name, ratio, labels in (
        ("light", 0.1, DIGITS),
        ("deep", 0.5, DIGITS),
        ("other", 0.5, tuple("abcdefghij")),
    ):
        source = load_source(SOURCE, num_classes=10)
        slim, plan = prune(source.model, torch.randn(1, 3, 32, 32), ratio=ratio)
        args = {"source": SOURCE, "source_args": source.args, "labels": labels, "preprocessing": FRAME}
        made[name] = str(save(place / name, slim, plan, **args))
    return made


@pytest.fixture
def ask(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def answer(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["penjing", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().out

    return answer


def test_the_roofline_is_told_where_it_is_asked_for(folders: dict[str, str]) -> None:
    found = inspect(folders["light"], bound=True)["roofline"]
    assert found["bound_ms"] == pytest.approx(sum(one["bound_ms"] for one in found["operators"]))
    assert sum(one["macs"] for one in found["operators"]) == inspect(folders["light"])["macs"]
    assert "roofline" not in inspect(folders["light"])


def test_inspect_adds_up(folders: dict[str, str]):
    found = inspect(folders["deep"])
    assert found["input_size"] == [3, 32, 32]
    assert sum(layer["params"] for layer in found["layers"]) == found["params"]
    assert sum(layer["macs"] for layer in found["layers"]) == found["macs"]
    assert {group["fidelity"] for group in found["groups"]} == {"exact"}
    assert all(group["units"] > 0 and group["tensors"] for group in found["groups"])
    assert next(item for item in found["frozen"] if item["module"] == "classifier.1")["dims"][0]["cause"]
    assert inspect(folders["light"])["params"] > found["params"]


def test_inspect_takes_sources_and_another_size():
    small, large = (inspect(SOURCE, image_size=size) for size in (32, 64))
    assert small["params"] == large["params"]
    assert large["macs"] > 3 * small["macs"]


def test_inspect_prints_layers_groups_and_causes(ask, folders: dict[str, str]):
    code, said = ask("inspect", folders["deep"])
    assert code == 0
    for word in (
        "features.0",
        "What may shrink",
        "channel",
        "exact",
        "What may not shrink",
        "MACs at 3x32x32",
    ):
        assert word in said
    assert json.loads(ask("inspect", folders["deep"], "--json")[1])["params"] > 0
    assert ask("inspect", folders["deep"], "--quiet") == (0, "")


def test_compare_counts_on_the_same_examples(folders: dict[str, str]):
    found = compare(folders["light"], folders["deep"], data="builtin:digits", batch_sizes=(8,))
    light, deep = found["rows"]
    assert light["macs"] > deep["macs"]
    right = [round(row["accuracy"] * found["data"]["n"]) for row in found["rows"]]
    assert right[0] - right[1] == found["only_a_right"] - found["only_b_right"]
    assert 0 <= found["agreement"] <= 1
    assert found["speedup"]["batch_8"]["low"] <= found["speedup"]["batch_8"]["ratio"]


def test_compare_with_itself_agrees(ask, folders: dict[str, str]):
    code, said = ask("compare", folders["deep"], folders["deep"], "--data", "builtin:digits")
    assert code == 0
    assert "Same answer on 100.0%" in said


def test_compare_refuses_networks_for_other_classes(folders: dict[str, str]):
    with pytest.raises(UsageError, match="knows the classes a, b"):
        compare(folders["deep"], folders["other"], data="builtin:digits")


def test_folders_that_hold_no_network_are_refused(tmp_path: Path, folders: dict[str, str]):
    with pytest.raises(UsageError, match="neither a run nor a saved network"):
        inspect(str(tmp_path))
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match="has not finished"):
        inspect(str(tmp_path))
    (tmp_path / "structure.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"structure\.json"):
        inspect(str(tmp_path))


def test_inspect_takes_networks_that_read_something_else_than_pictures(tmp_path: Path):
    code = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.body, self.out = nn.Embedding(20, 8), nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)
        self.example_inputs = {"ids": torch.zeros(1, 7, dtype=torch.long)}

    def forward(self, ids):
        return self.out(self.body(self.words(ids))[0]), None
"""
    (tmp_path / "tagger.py").write_text(code, encoding="utf-8")
    found = inspect(f"file:{tmp_path / 'tagger.py'}:Tagger", trust=True)
    assert found["input_size"] == [7]
    assert {group["granularity"] for group in found["groups"]} == {"embed", "hidden"}
    assert found["unknown_ops"] == []
