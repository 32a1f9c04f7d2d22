"""Even widths where milliseconds rise in stairs: longer steps are tried, and what keeps most computation stays."""

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core import Budget, UsageError
from penjing.core._groups import PruneGroup
from penjing.search import _choose
from penjing.search._choose import BudgetCost, Chooser
from penjing.search._latency_table import LatencyTable, Observation, fit_table
from penjing.search._node_time import Seen
from penjing.search._select import Rounding, prunable
from penjing.structure import Structure, trace

BLOCK = 16  # channels that the runtime computes at once, filled or not


def convolution(rows: int, inside: int, outside: int, area: int) -> Seen:
    filled = -(-outside // BLOCK) * BLOCK
    return Seen(((rows, inside), (outside, inside, area), (rows, outside)), 1e-5 * filled * inside * area)


def observation(structure: Structure, kept: dict[str, int]) -> Observation:
    first, second = (kept[g.name] for g in structure.groups)
    times = {"first": convolution(256, 3, first, 9), "second": convolution(256, first, second, 9)}
    whole = 0.1 + sum(seen.milliseconds for seen in times.values())
    return Observation(kept=kept, operators=times, milliseconds=whole)


@pytest.fixture(scope="module")
def structure() -> Structure:
    net = nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip
    return trace(net.eval(), torch.randn(1, 3, 16, 16))


@pytest.fixture(scope="module")
def groups(structure: Structure) -> tuple[PruneGroup, ...]:
    return prunable(structure, granularity=("channel",), protect=(), exact_only=False)


@pytest.fixture(scope="module")
def table(structure: Structure) -> LatencyTable:
    rng = np.random.default_rng(0)
    widths = [(128, 256), *((8 * rng.integers(2, 17), 8 * rng.integers(4, 33)) for _ in range(40))]
    names = [g.name for g in structure.groups]
    return fit_table(
        structure,
        [observation(structure, dict(zip(names, map(int, pair), strict=True))) for pair in widths],
    )


def chosen(
    structure: Structure, groups: tuple[PruneGroup, ...], table: LatencyTable, share: float
) -> tuple[dict[str, int], int]:
    """Units kept per group and the MACs that are left."""
    scores = {g.name: np.arange(len(g), dtype=float) for g in groups}
    chooser = Chooser(structure=structure, scores=scores, rounding=Rounding(round_to=8), scope="uniform",
                      table=table)  # fmt: skip
    budget = Budget.parse(f"latency<={share}x")
    selection = chooser.for_budget(groups, budget).selection
    cost = BudgetCost(structure, budget, table)
    assert cost.excess(selection) <= 1
    return {g.name: len(g) - len(selection.get(g.name, ())) for g in groups}, cost.macs(selection)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_longer_steps_keep_no_less(
    structure: Structure,
    groups: tuple[PruneGroup, ...],
    table: LatencyTable,
    share: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept, macs = chosen(structure, groups, table, share)
    monkeypatch.setattr(_choose, "COARSER", ())
    short, fewer = chosen(structure, groups, table, share)
    assert macs >= fewer
    assert macs > fewer or kept == short


def test_some_budget_keeps_more_by_longer_steps(
    structure: Structure,
    groups: tuple[PruneGroup, ...],
    table: LatencyTable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares = [0.25, 0.35, 0.45, 0.55, 0.65, 0.75]
    with_stairs = [chosen(structure, groups, table, share)[1] for share in shares]
    monkeypatch.setattr(_choose, "COARSER", ())
    without = [chosen(structure, groups, table, share)[1] for share in shares]
    assert sum(with_stairs) > sum(without)


def test_only_groups_with_room_take_longer_steps() -> None:
    rounding = Rounding(round_to=8, coarser=4)
    assert rounding.step(128, "channel") == 32
    assert rounding.step(127, "channel") == 8
    assert rounding.step(128, "head") == 1
    with pytest.raises(UsageError, match="coarser=0"):
        Rounding(coarser=0)
