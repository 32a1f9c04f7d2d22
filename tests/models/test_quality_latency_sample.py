"""The comparison at equal latency on stand-in data: the peer's search, going on after a stop, and the page."""

from types import SimpleNamespace

import pytest

from benchmarks import quality_latency
from benchmarks.quality_latency_table import page
from benchmarks.quality_pairs import Pair, open_case

SMALL = Pair(
    name="small",
    about="a small network on digits",
    recipe={
        "task": "image-classification",
        "model": "timm:resnet10t",
        "model_args": {"in_chans": 1, "channels": [16, 32, 32, 64], "stem_width": 16},
        "weights": "none",
        "image_size": 32,
        "data": "builtin:digits",
        "steps": {"transfer": {"epochs": 1, "probe_epochs": 0}, "recover": {"batch_size": 16}},
    },
    counts=(96, 40, 80),
    stream=("bn1", "layer*.bn2", "layer*.downsample.*"),
    seconds=0.5,
)
WAYS = ["loss", "peer", "uniform", "global"]


class ByMacs:
    """A timekeeper on whose machine time is computation."""

    def __init__(self, case):
        self.case, self.milliseconds = case, 1.0

    def time(self, model, *, operators):
        return SimpleNamespace(milliseconds=self.case.ratio(model))


def test_the_peers_ratio_is_searched_until_it_is_near_the_time(tmp_path, monkeypatch):
    pytest.importorskip("torch_pruning")
    monkeypatch.setitem(quality_latency.PEERS, "small", "tp-magnitude-uniform-inner")
    monkeypatch.setattr(quality_latency, "ROUND_TO", None)
    case = open_case(SMALL, 0, tmp_path)
    cut = quality_latency.Bisected().cut(case, 0.6, ByMacs(case))
    assert 0.95 * 0.6 <= case.ratio(cut.model) <= 0.6


def test_rows_that_are_there_are_not_made_again(tmp_path):
    missing = [way for way, _, _ in quality_latency._missing(SMALL, 0, [0.5], "eager", tmp_path, WAYS)]
    assert missing == WAYS
    (tmp_path / "small-0.peer.0.5.eager.latency.json").write_text("{}")
    missing = [way for way, _, _ in quality_latency._missing(SMALL, 0, [0.5], "eager", tmp_path, WAYS)]
    assert missing == [way for way in WAYS if way != "peer"]


def test_the_page_tells_paired_differences_and_failures():
    row = {"pair": "small", "seed": 0, "share": 0.5, "runtime": "eager", "status": "done", "before": 0.5}
    row |= {"measured": 0.49, "lowest": 0.48, "highest": 0.5, "macs_ratio": 0.4, "cut_seconds": 3.0}
    rows = [
        row | {"way": "loss", "accuracy": 0.75, "right": "1110"},
        row | {"way": "peer", "accuracy": 0.5, "right": "1010"},
        row | {"way": "global", "status": "fails: it | cannot"},
    ]
    text = page(
        [SMALL], [{"pair": "small", "accuracy": 0.8, "seed": 0}], rows, {"small": "tp-x"}, batch=8, peer="1"
    )
    assert "| small | eager | 0.5x | 80.0 | 75.0 |  |  | +25.0 (-24.0 to 74.0) |" in text
    assert "| small | eager | 0.5x | tp-x | 0 | 0.490x (0.480 to 0.500) | 0.400x | 50.0 | 50.0 | 3 |" in text
    assert "fails: it / cannot" in text
