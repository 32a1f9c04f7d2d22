"""Networks of random widths, to learn from what each of them takes."""

from collections.abc import Callable, Iterator, Mapping, Sequence

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
ENOUGH = 0.03  # median error of the table on networks left out


def learn_table(
    model: nn.Module,
    structure: Structure,
    groups: Sequence[PruneGroup],
    keeper: Timekeeper,
    rounding: Rounding,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LatencyTable:
    """A latency table of `model` from networks of random widths, timed by `keeper`.

    12 of them, and up to 24 while the table misses those left out by more than 3% in the median.
    """
    seen = [_observed(keeper.time(model), {g.name: len(g) for g in groups})]
    table: LatencyTable | None = None
    for number, kept in enumerate(designs(structure, groups, rounding, MOST, seed=seed), 1):
        rng = np.random.default_rng((seed, number))
        gone = {
            g.name: tuple(np.sort(rng.permutation(len(g))[kept[g.name] :]).tolist())
            for g in groups
            if kept[g.name] < len(g)
        }
        seen.append(_observed(keeper.time(apply(model, plan_removal(structure, gone))), kept))
        if progress is not None:
            progress(number, NETWORKS if number <= NETWORKS else MOST)
        if number >= NETWORKS and number % FEWEST == 0:
            table = fit_table(structure, seen)
            if table.error <= ENOUGH:
                return table
    return table or fit_table(structure, seen)


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
