"""The comparison of accuracies on stand-in data: rows of either side, equal seconds, and going on after a stop."""

import json

import pytest
import torch
from torch import nn

from benchmarks import quality
from benchmarks.quality_pairs import Pair, open_case
from benchmarks.quality_recovery import Sliced
from benchmarks.quality_table import best_of, page

SMALL = Pair(
    name="small",
    about="a small network on digits",
    recipe={
        "task": "image-classification",
        "model": "timm:resnet10t",
        "model_args": {"in_chans": 1, "channels": [8, 16, 16, 24], "stem_width": 8},
        "weights": "none",
        "image_size": 16,
        "data": "builtin:digits",
        "steps": {"transfer": {"epochs": 1, "probe_epochs": 0}, "recover": {"batch_size": 16}},
    },
    counts=(160, 40, 80),
    stream=("bn1", "layer*.bn2", "layer*.downsample.*"),
    seconds=0.5,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(scope="module")
def run(out):
    pytest.importorskip("torch_pruning")
    before = torch.get_num_threads()
    methods = ["taylor-uniform-inner", "obs-loss-inner+refit", "tp-taylor-isomorphic"]
    asked = quality.Run(
        out=out, pairs=[SMALL], seeds=[0], budgets=[0.5], methods=methods, asked=True, recover=True
    )
    quality.work(asked)
    torch.set_num_threads(before)
    return asked


def test_either_side_meets_the_budget_and_is_recovered(run):
    rows = {(row["method"], row["stage"]): row for row in run.rows()}
    assert {row["status"] for row in rows.values()} == {"done"}
    assert len(rows) == 6
    for (method, _), row in rows.items():
        assert row["macs_ratio"] <= (0.505 if method.startswith("tp-") else 0.5)
        assert row["macs_ratio"] > 0.4
    assert all(row["steps"] >= 4 for (_, stage), row in rows.items() if stage == "recovered")


def test_a_second_run_does_nothing_again_and_a_lost_row_is_made_anew(run, out):
    files = sorted(path for path in out.rglob("*") if path.is_file())
    before = {path: path.stat().st_mtime_ns for path in files}
    lost = out / "small-0.taylor-uniform-inner.0.5.cut.json"
    first = json.loads(lost.read_text())
    lost.unlink()
    quality.work(run)
    assert [path for path in files if path.stat().st_mtime_ns != before[path]] == [lost]
    again = json.loads(lost.read_text())
    assert {**again, "cut_seconds": 0} == {**first, "cut_seconds": 0}


def test_the_page_compares_the_best_of_either_side(run, out):
    bases = [json.loads(path.read_text()) for path in out.glob("*.base.json")]
    text = page([SMALL], bases, run.rows(), peer="1", first=1, later=1)
    untrained = next(line for line in text.splitlines() if line.startswith("| small | 0.5x"))
    assert best_of(run.rows(), "ours", 0.5, 1)[0] in untrained
    assert best_of(run.rows(), "peer", 0.5, 1)[0] in untrained
    assert text.count("| small | 0.5x") == 2  # without training, and recovered


def test_what_is_kept_whole_is_the_same_for_either_side(run, out):
    case = open_case(SMALL, 0, out)
    for method in ("taylor-uniform-inner", "tp-magnitude-uniform-inner"):
        cut = quality.METHODS[method].cut(case, 0.5)
        wide = dict(case.model.named_modules())
        convs = {name: m for name, m in cut.model.named_modules() if isinstance(m, nn.Conv2d)}
        assert all(m.out_channels == wide[name].out_channels for name, m in convs.items() if "conv2" in name)
        assert any(m.out_channels < wide[name].out_channels for name, m in convs.items())


def test_a_failure_is_a_row_of_its_own(run, out, monkeypatch):
    class Broken:
        def cut(self, case, budget):
            raise RuntimeError("no such ratio")

    monkeypatch.setitem(quality.METHODS, "broken", Broken())
    row = quality.make(quality.Key("small", 0, "broken", 0.5, "cut"), open_case(SMALL, 0, out))
    assert row["status"] == "fails: RuntimeError: no such ratio"


def test_slices_are_one_row_of_whole_batches():
    class Data:
        def n(self, split):
            return 10

        def batches(self, split, batch_size, *, epoch=0, **options):
            return [
                [epoch * 10 + i for i in range(start, min(10, start + batch_size))]
                for start in range(0, 10, batch_size)
            ]

    sliced = Sliced(Data(), 4, 3)
    assert sliced.n("train") == 12
    first = list(sliced.batches("train", 4, epoch=0))
    second = list(sliced.batches("train", 4, epoch=1))
    assert first + second == [[e * 10 + i for i in range(s, s + 4)] for e in range(3) for s in (0, 4)]
    assert list(sliced.batches("selection", 5)) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def _stored(out, method, budget, stage, **figures):
    key = quality.Key("small", 0, method, budget, stage)
    side = "ours" if method in quality.OURS else "peer"
    about = {"pair": "small", "seed": 0, "method": method, "budget": budget, "side": side, "stage": stage}
    key.file(out).write_text(json.dumps({**about, "status": "done", **figures}))


def test_after_the_screen_the_best_of_either_side_are_followed(tmp_path):
    asked = quality.Run(
        out=tmp_path, pairs=[SMALL], seeds=[0, 1], budgets=[0.65, 0.25], methods=list(quality.METHODS),
        asked=False, recover=True,
    )  # fmt: skip
    assert all(key.budget == 0.65 and key.stage == "cut" for key in asked.todo())
    ours, peers = list(quality.OURS), list(quality.PEER)
    for budget in (0.65, 0.25):
        for place, method in enumerate(ours):
            _stored(tmp_path, method, budget, "cut", plain=0.9, bn=0.0, bn_selection=place / 10)
        for place, method in enumerate(peers):  # best without training is the first of them
            _stored(tmp_path, method, budget, "cut", plain=0.1, bn=0.5 - place / 100)
    _stored(tmp_path, ours[-1], 0.25, "recovered", recovered=0.9)
    _stored(tmp_path, peers[0], 0.25, "recovered", recovered=0.6)
    _stored(tmp_path, peers[1], 0.25, "recovered", recovered=0.7)
    later = {(key.stage, key.budget, key.method) for key in asked.todo()}
    assert later == {
        *(("cut", budget, method) for budget in (0.65, 0.25) for method in (ours[-1], *peers[:2])),
        ("recovered", 0.25, ours[-1]),
        ("recovered", 0.25, peers[1]),
    }
