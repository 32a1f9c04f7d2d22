"""Budgets on bytes, and on several figures together, through the main job."""

import json
from pathlib import Path

import pytest
from test_milliseconds import RECIPE, Clock
from tiny_runs import figures, tiny_recipe

from penjing.core import BudgetError
from penjing.pipeline import shape
from penjing.search import _within_time


def test_a_run_holds_every_limit_and_says_which_one_bound(tmp_path: Path) -> None:
    recipe = tiny_recipe({**RECIPE, "budget": "memory<=0.8x,size<=0.6x,macs<=0.9x"}, tmp_path)
    metrics = shape(recipe, tmp_path / "run", trust=True)
    rows = {row["name"]: row for row in metrics["rows"]}
    whole, slim = rows["transferred"], rows["slim"]
    held = slim["peak_memory"]["bytes"] / whole["peak_memory"]["bytes"] / 0.8
    shares = [held, slim["size_bytes"] / whole["size_bytes"] / 0.6, slim["macs"] / whole["macs"] / 0.9]
    assert 0.9 <= max(shares) <= 1  # a network of few channels, each a large share of the figures
    bound = ("memory", "size", "macs")[shares.index(max(shares))]
    told = figures(tmp_path / "run")["prune"]["bound"]
    assert told.startswith(f"Of the budget, {bound} bound: ")
    assert told in json.loads((tmp_path / "run" / "metrics.json").read_text())["notes"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_within_time, "Timekeeper", Clock)


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        ("memory<=0.05x,macs<=0.9x", "memory<="),
        ("latency<=0.9x,size<=0.0001x", "size<="),
    ],
)
def test_what_is_out_of_reach_is_refused_before_anything_is_trained(
    tmp_path: Path, clock: None, budget: str, named: str
) -> None:
    with pytest.raises(BudgetError, match="the nearest that can is") as caught:
        shape(tiny_recipe({**RECIPE, "budget": budget}, tmp_path), tmp_path / "run", trust=True)
    assert f"nearest that can is {named}" in str(caught.value)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "steps").exists()
