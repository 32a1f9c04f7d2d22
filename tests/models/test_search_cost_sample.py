"""The cost of a search on the smallest network of the benchmark, and the slopes of costs that are known."""

import time

import pytest
from torch import nn

from benchmarks import search_cost
from penjing.measure import Timekeeper, Timing, count_macs


def test_a_search_tells_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that takes 1 ms and 1 ms per MMAC, and a tenth of a CPU second to say so."""

    def true(keeper: Timekeeper, model: nn.Module, operators: bool = True) -> Timing:
        begun = time.process_time()
        while time.process_time() < begun + 0.1:
            pass
        return Timing(
            milliseconds=1 + count_macs(model, keeper.example_inputs) / 1e6, spread=0.0, operators={}
        )

    def entered(keeper: Timekeeper) -> Timekeeper:
        keeper.milliseconds = true(keeper, keeper.reference).milliseconds
        return keeper

    monkeypatch.setattr(Timekeeper, "__enter__", entered)
    monkeypatch.setattr(Timekeeper, "time", true)
    monkeypatch.setattr(Timekeeper, "place", {"device": "by MACs"})
    row = search_cost.cost(1, 8)
    assert row["networks"] >= 13
    assert 0.1 * (row["networks"] + row["tries"]) <= row["timing"] < row["seconds"]


def test_slopes_are_those_of_the_costs() -> None:
    """Choosing takes blocks times the square root of widths, timing as much again per block."""
    rows = {
        (b, w): {"seconds": b * (1 + w**0.5), "timing": float(b), "networks": 13, "tries": 1}
        for b in (4, 8, 16)
        for w in (2, 8, 32)
    }
    told = search_cost.told(rows)
    assert "- slope of all over blocks, the other held: 1.00 to 1.00" in told
    assert "- slope of choosing over blocks, the other held: 1.00 to 1.00" in told
    assert "- slope of choosing over widths, the other held: 0.50 to 0.50" in told
    assert "| 16 | 32 | 512 | 13 | 1 | 16.0 |" in search_cost.table(rows)
