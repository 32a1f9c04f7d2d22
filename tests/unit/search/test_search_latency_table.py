"""Latency tables from networks of random widths: recognised, fitted, and right about networks they have not seen."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import nn

from penjing.search._designs import designs
from penjing.search._latency_table import LatencyTable, Observation, fit_table
from penjing.search._node_time import Seen
from penjing.search._select import Rounding, prunable
from penjing.structure import Structure, trace

GRANULARITY = ("channel", "neuron")


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 64, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def structure() -> Structure:
    return trace(net().eval(), torch.randn(1, 3, 8, 8))


def up(n: int, step: int) -> int:
    return -(-n // step) * step


Clock = Callable[[dict[int, int]], dict[str, Seen]]


def widths(structure: Structure, kept: dict[str, int]) -> tuple[int, int, int]:
    """Kept channels of both convolutions and neurons, in the order of depth."""
    sizes = {len(g): kept[g.name] for g in structure.groups if g.name in kept}
    return sizes[48], sizes[64], sizes[96]


def operators(structure: Structure, kept: dict[str, int], step: int = 1, batch: int = 4) -> dict[str, Seen]:
    """A runtime that rounds channels up to `step`, fuses activations, and flattens pixels into rows."""
    a, b, c = widths(structure, kept)
    a, b = up(a, step), up(b, step)
    rows = batch * 64
    return {
        "conv:0": Seen(((rows, 3), (a, 3, 3, 3), (rows, a)), 0.01 + 1e-4 * a * 27),
        "conv:1": Seen(((rows, a), (b, a, 3, 3), (rows, b)), 0.02 + 2e-5 * a * b * 9 + 1e-5 * rows * b),
        "gemm:0": Seen(((batch, b), (b, c), (batch, c)), 0.005 + 1e-5 * b * c),
        "gemm:1": Seen(((batch, c), (c, 10), (batch, 10)), 0.005 + 1e-6 * c),
    }


def observations(
    structure: Structure, count: int, step: int = 1, noise: float = 0.0
) -> Iterator[Observation]:
    groups = prunable(structure, granularity=GRANULARITY, protect=(), exact_only=False)
    rng = np.random.default_rng(1)
    whole = {g.name: len(g) for g in groups}
    for kept in (whole, *designs(structure, groups, Rounding(round_to=4), count, seed=0)):
        ops = operators(structure, kept, step)
        ops = {
            k: Seen(s.shapes, s.milliseconds * (1 + noise * rng.standard_normal())) for k, s in ops.items()
        }
        yield Observation(
            kept=kept, operators=ops, milliseconds=0.1 + 1.2 * sum(s.milliseconds for s in ops.values())
        )


def unseen_errors(structure: Structure, table: LatencyTable, step: int) -> list[float]:
    groups = prunable(structure, granularity=GRANULARITY, protect=(), exact_only=False)
    found = []
    for kept in designs(structure, groups, Rounding(round_to=4), 20, seed=7):
        true = 0.1 + 1.2 * sum(s.milliseconds for s in operators(structure, kept, step).values())
        found.append(abs(table.milliseconds(kept) / true - 1))
    return found


@pytest.mark.parametrize("step", [1, 16])
def test_networks_it_has_not_seen_are_told_exactly_where_times_follow_sizes(
    structure: Structure, step: int
) -> None:
    table = fit_table(structure, list(observations(structure, 12, step)))
    assert table.unexplained == 0
    assert table.error < 0.01
    assert max(unseen_errors(structure, table, step)) < 0.02


def test_noisy_times_are_told_better_than_their_noise(structure: Structure) -> None:
    table = fit_table(structure, list(observations(structure, 24, 1, noise=0.05)))
    assert np.median(unseen_errors(structure, table, 1)) < 0.05


def test_its_parts_name_the_groups_they_depend_on(structure: Structure) -> None:
    table = fit_table(structure, list(observations(structure, 12)))
    depends = {frozenset(len(structure.groups[g]) for g in part.groups) for part in table.parts}
    assert depends == {
        frozenset({48}),
        frozenset({48, 64}),
        frozenset({64, 96}),
        frozenset({96}),
        frozenset(),
    }


def test_parts_take_arrays_of_counts(structure: Structure) -> None:
    table = fit_table(structure, list(observations(structure, 12, 16)))
    counts = {i: len(g) for i, g in enumerate(structure.groups)}
    number = next(i for i, g in enumerate(structure.groups) if len(g) == 64)
    options = np.array([8, 32, 64])
    for part in table.parts:
        together = np.broadcast_to(part.cost({**counts, number: options}), 3)
        assert together.tolist() == pytest.approx([part.cost({**counts, number: int(n)}) for n in options])


def test_operators_whose_sizes_are_nobody_s_are_counted_as_unexplained(structure: Structure) -> None:
    rng = np.random.default_rng(0)
    seen = [
        Observation(
            kept=one.kept,
            operators={**one.operators, "odd": Seen(((int(rng.integers(2, 999)), 7),), 0.1)},
            milliseconds=one.milliseconds,
        )
        for one in observations(structure, 12)
    ]
    table = fit_table(structure, seen)
    assert 0 < table.unexplained < 1


def test_a_scaled_table_tells_all_times_longer(structure: Structure) -> None:
    table = fit_table(structure, list(observations(structure, 12)))
    assert table.scaled(1.5).milliseconds({}) == pytest.approx(1.5 * table.milliseconds({}))


def test_designs_take_every_group_through_all_its_widths_and_keep_ties(structure: Structure) -> None:
    groups = prunable(structure, granularity=GRANULARITY, protect=(), exact_only=False)
    made = list(designs(structure, groups, Rounding(round_to=8), 12, seed=3))
    assert made == list(designs(structure, groups, Rounding(round_to=8), 12, seed=3))
    for group in groups:
        kept = sorted(one[group.name] for one in made)
        assert kept[0] <= 0.25 * len(group)
        assert kept[-1] >= 0.9 * len(group)
        assert len(set(kept)) >= 4


def test_where_no_operator_is_told_the_whole_is_told_by_kinds(structure: Structure) -> None:
    silent = [
        Observation(kept=one.kept, operators={}, milliseconds=one.milliseconds)
        for one in observations(structure, 24)
    ]
    table = fit_table(structure, silent)
    assert not table.stepped
    assert np.median(unseen_errors(structure, table, 1)) < 0.05
