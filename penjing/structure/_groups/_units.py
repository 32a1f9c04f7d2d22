"""From labels to prune groups: names, granularities and fidelities, and what is frozen."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.core._groups import Frozen, PruneGroup, Slot
from penjing.structure._groups._ownership import cluster, coarse, shared_heads
from penjing.structure._labels._atoms import Atoms, Dim
from penjing.structure._rules import Facts

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class State:
    """One parameter or buffer: its names, shape and labels (None where no trace reached it)."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    labels: tuple[Dim, ...] | None
    learned: bool
    kind: str = ""  # "recurrent" and "table" where the owner is a recurrent or an embedding module


def build_groups(
    all_facts: Sequence[Facts], states: Sequence[State], parts: np.ndarray
) -> tuple[PruneGroup, ...]:
    """Named groups with granularity and fidelity. Atoms with different `parts` (int per atom) are never of one."""
    atoms = all_facts[0].atoms
    renormalized = _marked(atoms, [(c,) for f in all_facts for c in f.renormalized])
    kinds = {
        kind: _marked(atoms, [dim for f in all_facts for k, dim in f.kinds if k == kind])
        for kind in ("expert", "head_dim", "head", "group")
    }
    codes = np.zeros(len(atoms), dtype=np.int8)  # arrays over all atoms are the peak of a trace's memory
    for i, mark in enumerate(kinds.values()):
        codes[mark] |= 1 << i
    parts *= 1 << len(kinds)
    parts += codes
    found = cluster(atoms, [state.labels or () for state in states], parts)
    plain = [i for i, (members, _) in enumerate(found) if not codes[members].any()]
    thick = {plain[i] for i in coarse([found[i][1] for i in plain])}
    named = [next((k for k, mark in kinds.items() if mark[m].any()), "") for m, _ in found]
    heads = [i for i, kind in enumerate(named) if kind == "head"]
    shared = {heads[i]: kind for i, kind in shared_heads([found[i][1] for i in heads]).items()}
    stacks = {
        s for (_, slots), kind in zip(found, named, strict=True) if kind == "expert" for s, _, _ in slots
    }
    groups, taken = [], set()
    for position, (members, slots) in enumerate(found):
        granularity = (
            shared.get(position)
            or named[position]
            or ("group" if position in thick else _granularity(states, slots, stacks))
        )
        name = _name(states, slots, taken)
        taken.add(name)
        groups.append(
            PruneGroup(
                name=name,
                granularity=granularity,
                fidelity="renormalized" if renormalized[members].any() else "exact",
                slots=tuple(Slot(name=states[s].names[0], dim=d, index=i) for s, d, i in slots),
                atoms=tuple(members.tolist()),
            )
        )
    return tuple(groups)


def _marked(atoms: Atoms, dims: Sequence[Dim]) -> np.ndarray:
    mark = np.zeros(len(atoms), dtype=bool)
    for dim in dims:
        for column in atoms.expand(dim):
            pattern = atoms.pattern(column)
            if pattern is None:
                mark[column] = True
            else:
                mark[pattern.block.start : pattern.block.start + pattern.block.size] = True
    mark[: atoms.first] = False
    return mark


def _granularity(
    states: Sequence[State], slots: Sequence[tuple[int, int, np.ndarray]], stacks: Collection[int] = ()
) -> str:
    """hidden in recurrent modules, channel where convolutions meet (at least one to two linear layers), embed for a
    linear residual stream and the width of a table, neuron between two linear layers. `stacks` hold one matrix per
    expert: they count as linear.
    """
    rank = {s: len(states[s].shape) - (s in stacks and len(states[s].shape) > 2) for s, _, _ in slots}
    owned = [(states[s], d) for s, d, _ in slots if states[s].learned and len(states[s].shape) > 1]
    if any(state.kind == "recurrent" and dim == 0 for state, dim in owned):
        return "hidden"
    linear = [d - (len(states[s].shape) - 2) for s, d, _ in slots if states[s].learned and rank[s] == 2]
    kernels = sum(rank[s] > 2 and d < 2 for s, d, _ in slots if states[s].learned)
    if kernels and 2 * kernels >= len(linear):
        return "channel"
    producers = sum(dim == 0 for dim in linear) + kernels
    stream = producers > 1 and len(linear) - producers > 1
    return "embed" if stream or any(state.kind == "table" for state, _ in owned) else "neuron"


def _name(states: Sequence[State], slots: Sequence[tuple[int, int, np.ndarray]], taken: set[str]) -> str:
    """After the first weight that produces the units (dim 0 of a matrix or kernel), else the first tensor."""
    ranked = sorted(
        slots, key=lambda s: (s[1] != 0, len(states[s[0]].shape) < 2, not states[s[0]].learned, s[0])
    )
    base = name = f"{states[ranked[0][0]].names[0]}:{ranked[0][1]}"
    count = 1
    while name in taken:
        count += 1
        name = f"{base}#{count}"
    return name


def list_frozen(atoms: Atoms, states: Sequence[State]) -> tuple[Frozen, ...]:
    """Every index that no group owns, with its cause."""
    found: list[Frozen] = []
    known: dict[tuple[int, ...], dict[str, int]] = {}
    for state in states:
        for dim, size in enumerate(state.shape):
            for cause, count in _causes(atoms, state, dim, size, known).items():
                module = state.names[0].rpartition(".")[0]
                found.append(
                    Frozen(parameter=state.names[0], dim=dim, cause=cause, module=module, count=count)
                )
    return tuple(found)


def _causes(
    atoms: Atoms, state: State, dim: int, size: int, known: dict[tuple[int, ...], dict[str, int]]
) -> dict[str, int]:
    """Cause -> how many indices of a dim it holds; `known` for dims that come down to the same columns."""
    if state.labels is None:
        return {
            "not reached by the example inputs: nothing is known about it; add an input that uses it": size
        }
    if not state.labels[dim]:
        return {"has a single index": size} if size else {}
    columns = atoms.expand(state.labels[dim])
    if atoms.pattern(columns[0]) is not None:
        return {}
    place = tuple(map(id, columns))
    if place not in known:
        still = np.all([c < atoms.first for c in columns], axis=0)
        ids, counts = np.unique(columns[0][still], return_counts=True)
        known[place] = {atoms.cause(int(i)): int(n) for i, n in zip(ids, counts, strict=True)}
    return known[place]
