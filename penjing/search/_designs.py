"""Networks of random widths, to learn from what each of them takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from torch import nn

from penjing.core._groups import PruneGroup
from penjing.measure import Timekeeper, Timing
from penjing.search._latency_table import FEWEST, LatencyTable, Observation, fit_table
from penjing.search._node_time import Seen
from penjing.search._select import Rounding, floor_choices
from penjing.structure import Structure
from penjing.surgery import apply, plan_removal

NETWORKS = 12
MOST = 24
PACING = 3  # networks timed before that are timed anew, to tell the machine's pace
ONE_PACE = 1.25  # the largest of these paces over the smallest, while the machine is taken for the same
ENOUGH = 0.03  # median error of the table on networks left out


def learn_table(
    model: nn.Module,
    structure: Structure,
    groups: Sequence[PruneGroup],
    keeper: Timekeeper,
    rounding: Rounding,
    *,
    seed: int = 0,
    before: Sequence[Observation] = (),
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """A latency table of `model` from networks of random widths, timed by `keeper`.

    12 of them, and up to 24 while the table misses those left out by more than 3% in the median. `before` are
    observations of an earlier search, the whole network first. The first three of the others are timed anew all the
    same; what the rest hold is brought to the pace that these run at now, or forgotten where they run at several.
    """
    seen = [_observed(keeper.time(model), {g.name: len(g) for g in groups})]
    known = {tuple(one.kept.items()): one for one in before[1:]}
    paces: list[float] = []
    table, reused = None, 0
    for number, kept in enumerate(designs(structure, groups, rounding, MOST, seed=seed), 1):
        found = known.get(tuple(kept.items()))
        if found is None or len(paces) < PACING:
            slim = apply(model, plan_removal(structure, drawn(groups, kept, (seed, number))))
            now = _observed(keeper.time(slim), kept)
            paces += [now.milliseconds / found.milliseconds] if found else []
            found, known = now, known if not paces or max(paces) <= ONE_PACE * min(paces) else {}
        else:
            found, reused = at_pace(found, median(paces)), reused + 1
        seen.append(found)
        if progress is not None:
            progress(number, NETWORKS if number <= NETWORKS else MOST)
        if number >= NETWORKS and number % FEWEST == 0:
            table = fit_table(structure, seen)
            if table.error <= ENOUGH:
                break
    return replace(table or fit_table(structure, seen), reused=reused)


def drawn(groups: Sequence[PruneGroup], kept: Mapping[str, int], seed: Any) -> dict[str, tuple[int, ...]]:
    """Units that go, by group name, at random: which ones does not change the time."""
    rng = np.random.default_rng(seed)
    return {
        g.name: tuple(np.sort(rng.permutation(len(g))[kept[g.name] :]).tolist())
        for g in groups
        if kept[g.name] < len(g)
    }


def at_pace(one: Observation, factor: float) -> Observation:
    """The observation as if all had taken `factor` times as long."""
    return Observation(
        kept=one.kept,
        operators={k: Seen(s.shapes, factor * s.milliseconds) for k, s in one.operators.items()},
        milliseconds=factor * one.milliseconds,
    )


def designs(
    structure: Structure,
    groups: Sequence[PruneGroup],
    rounding: Rounding,
    count: int,
    *,
    seed: int,
) -> Iterator[dict[str, int]]:
    """Kept counts of `count` networks: in every `NETWORKS` of them each group takes narrow and wide widths alike often,
    in an order of its own (Latin hypercube sampling, McKay, Beckman & Conover, Technometrics 1979), and its ties hold.
    """
    rng = np.random.default_rng(seed)
    choices = {g.name: floor_choices(g, rounding) for g in groups}
    for start in range(0, count, NETWORKS):
        places = {g.name: rng.permutation(NETWORKS) for g in groups}
        for number in range(min(NETWORKS, count - start)):
            wish = {
                g.name: int(
                    c[min(len(c) - 1, int((places[g.name][number] + rng.random()) / NETWORKS * len(c)))]
                )
                for g in groups
                for c in (choices[g.name],)
            }
            yield structure.couplings.repair(wish, choices)


def _observed(timing: Timing, kept: Mapping[str, int]) -> Observation:
    return Observation(
        kept=kept,
        operators={key: Seen(shapes, ms) for key, (shapes, ms) in timing.operators.items()},
        milliseconds=timing.milliseconds,
    )
