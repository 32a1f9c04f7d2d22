"""Decide, for every size that code computes, how the groups it speaks of may shrink.

In this order: the requirement holds by itself; counts are tied (the groups shrink together, any of their units may
go); indices are tied; a group is taken apart where the code cuts through it; it is frozen. Ties are named as policies.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.core._groups import PruneGroup
from penjing.structure._groups._units import State, build_groups
from penjing.structure._labels._atoms import Dim
from penjing.structure._network._provenance import Attr, Size
from penjing.structure._rules import Facts
from penjing.structure._sizes._couplings import Couplings, find_couplings
from penjing.structure._sizes._movable import immovable
from penjing.structure._sizes._parts import Parts
from penjing.structure._sizes._requirements import Live, live_requirements
from penjing.structure._sizes._solve import solve

ALONE = "the code ties all of these indices together: none can go unless all of them do"


@dataclass(frozen=True, slots=True)
class Settled:
    groups: tuple[PruneGroup, ...]
    live: tuple[Live, ...]
    couplings: Couplings
    policies: tuple[str, ...]


def settle(all_facts: Sequence[Facts], states: Sequence[State], attributes: Mapping[Attr, int]) -> Settled:
    """Tie, take apart or freeze until every group can shrink, by itself or together with others.

    Each round settles a requirement in one of the first two ways or freezes a group, so the rounds are bounded by their
    number.
    """
    atoms = all_facts[0].atoms
    tied: set[int] = set()
    parts = Parts()
    policies: dict[str, None] = {}
    while True:
        atoms.expand_together(_labels(all_facts, states))
        live = live_requirements(all_facts)
        groups = build_groups(all_facts, states, parts.codes(len(atoms)))
        couplings = find_couplings(groups, live, len(atoms), attributes)
        stuck = [*immovable(couplings), *_breaking(groups, couplings.irregular, len(atoms), attributes)]
        alone = [np.array(g.atoms, dtype=np.int64) for g in groups if len(g) == 1] if not stuck else []
        if alone:
            atoms.freeze(tuple(alone), ALONE)
            continue
        if not stuck:
            counts = dict.fromkeys(
                f"count-tied: {c.source.source.cause}: {couplings.words(c)}"
                for component in couplings.components
                for c in component.constraints
            )
            return Settled(groups, tuple(live), couplings, (*policies, *counts))
        settled: set[int] = set()
        for group, item in stuck:
            if id(item.source) in settled:
                continue
            others = _partners(item)
            if others and id(item.source) not in tied:
                tied.add(id(item.source))
                settled.add(id(item.source))
                policies[f"tied: {item.source.cause}"] = None
                for other in others:
                    atoms.unify(item.source.dim, other, item.source.cause)
            elif parts.take_apart(group, item):
                settled.add(id(item.source))
            else:
                why = f"{item.source.cause}, computed in the code: no smaller size fits"
                atoms.freeze((np.array(group.atoms, dtype=np.int64),), why)


def _labels(all_facts: Sequence[Facts], states: Sequence[State]) -> Iterator[Dim]:
    """The dims that a round asks for."""
    for state in states:
        yield from state.labels or ()
    for requirement in (r for facts in all_facts for r in facts.requirements):
        yield requirement.dim


def _partners(item: Live) -> tuple[tuple[np.ndarray, ...], ...]:
    expr = item.source.expr
    others = (item.facts.labels[expr.value][expr.dim],) if isinstance(expr, Size) else item.source.partners
    return tuple(other for other in others if other)


def _breaking(
    groups: Sequence[PruneGroup], irregular: Sequence[Live], count: int, attributes: Mapping[Attr, int]
) -> list[tuple[PruneGroup, Live]]:
    """Groups of which one unit, or half of them, cannot go, with the requirement that breaks.

    For requirements on sizes that depend on which units stay: no count of units can say whether they hold.
    """
    if not irregular:
        return []
    owner = np.full(count, -1, dtype=np.int32)
    for position, group in enumerate(groups):
        owner[list(group.atoms)] = position
    touching: dict[int, list[Live]] = {}
    for item in irregular:
        owners = {int(o) for d in (item.dim, *item.sizes.values()) for c in d for o in np.unique(owner[c])}
        for position in owners - {-1}:
            touching.setdefault(position, []).append(item)
    broken = []
    for position, items in touching.items():
        failed = _first_broken(groups[position], items, count, attributes)
        if failed is not None:
            broken.append((groups[position], failed))
    return broken


def _first_broken(
    group: PruneGroup, items: Sequence[Live], count: int, attributes: Mapping[Attr, int]
) -> Live | None:
    """What breaks when one unit goes, or half of them (a size rounded down can hide one unit), from either end."""
    for units in sorted({1, len(group) // 2} - {0}):
        for some in (group.atoms[:units], group.atoms[-units:]):
            gone = np.zeros(count, dtype=bool)
            gone[list(some)] = True
            failed = solve(items, gone, attributes.__getitem__).broken
            if failed is not None:
                return failed
    return None
