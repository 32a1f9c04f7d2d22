"""From labels to prune groups: cluster atoms by the parameter slices they own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.core._groups import Frozen, PruneGroup, Slot
from penjing.structure._atoms import Atoms, Dim
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


@dataclass(frozen=True, slots=True)
class _Ownership:
    """(atom, slot, index) triples sorted by atom, slot, index, with the label column each comes from."""

    atoms: np.ndarray
    slots: np.ndarray
    index: np.ndarray
    columns: np.ndarray


def cluster(
    atoms: Atoms, states: Sequence[State], kinds: np.ndarray
) -> list[tuple[np.ndarray, list[tuple[int, int, np.ndarray]]]]:
    """Atoms that own alike slices: (atoms, [(state, dim, index of shape (units, k))]). Vectorised.

    Atoms of another kind (`kinds`: int per atom) or label column are not alike: 8 heads and 8 head dims own as many
    indices of the same tensors.
    """
    places, owned = _ownership(atoms, states)
    if not len(owned.atoms):
        return []
    starts = np.flatnonzero(np.r_[True, (np.diff(owned.atoms) != 0) | (np.diff(owned.slots) != 0)])
    counts = np.diff(np.r_[starts, len(owned.atoms)])
    run_atoms = owned.atoms[starts]
    codes = _mix(
        owned.slots[starts].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + counts.astype(np.uint64)
    )
    first_run = np.flatnonzero(np.r_[True, np.diff(run_atoms) != 0])
    unique_atoms = run_atoms[first_run]
    roles = owned.columns[starts[first_run]] + 256 * kinds[unique_atoms]
    signatures = np.add.reduceat(codes, first_run) + _mix(roles.astype(np.uint64))
    runs_per_atom = np.diff(np.r_[first_run, len(run_atoms)])
    found = []
    _, inverse = np.unique(signatures, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1):
        runs = first_run[members]
        slots = []
        for k in range(int(runs_per_atom[members[0]])):
            at = starts[runs + k]
            width = int(counts[runs[0] + k])
            index = owned.index[at[:, None] + np.arange(width)]
            state, dim = places[int(owned.slots[at[0]])]
            slots.append((state, dim, index))
        found.append((unique_atoms[members], slots))
    found.sort(key=lambda item: int(item[0][0]))
    return found


def _ownership(atoms: Atoms, states: Sequence[State]) -> tuple[list[tuple[int, int]], _Ownership]:
    places: list[tuple[int, int]] = []
    columns: list[tuple[np.ndarray, int, int]] = []
    for position, state in enumerate(states):
        for dim, labels in enumerate(state.labels or ()):
            if labels:
                columns.extend((column, len(places), k) for k, column in enumerate(atoms.expand(labels)))
                places.append((position, dim))
    if not columns:
        empty = np.empty(0, dtype=np.int64)
        return places, _Ownership(empty, empty, empty, empty)
    owner = np.concatenate([c for c, _, _ in columns])
    slot = np.concatenate([np.full(len(c), s) for c, s, _ in columns])
    index = np.concatenate([np.arange(len(c)) for c, _, _ in columns])
    column = np.concatenate([np.full(len(c), k) for c, _, k in columns])
    order = np.lexsort((column, index, slot, owner))
    order = order[owner[order] >= atoms.first]
    owner, slot, index, column = owner[order], slot[order], index[order], column[order]
    new = np.r_[True, (np.diff(owner) != 0) | (np.diff(slot) != 0) | (np.diff(index) != 0)][: len(owner)]
    return places, _Ownership(owner[new], slot[new], index[new], column[new])


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64 finaliser (Steele et al., OOPSLA 2014), so that sums of codes do not collide."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def build_groups(all_facts: Sequence[Facts], states: Sequence[State]) -> tuple[PruneGroup, ...]:
    """Named groups with granularity and fidelity."""
    atoms = all_facts[0].atoms
    renormalized = _marked(atoms, [(c,) for f in all_facts for c in f.renormalized])
    kinds = {
        kind: _marked(atoms, [dim for f in all_facts for k, dim in f.kinds if k == kind])
        for kind in ("head_dim", "head", "group")
    }
    codes = sum((2**i * mark for i, mark in enumerate(kinds.values())), np.zeros(len(atoms), dtype=np.int64))
    found = cluster(atoms, states, codes)
    coarse = _coarse({i: slots for i, (members, slots) in enumerate(found) if not codes[members].any()})
    groups, taken = [], set()
    for position, (members, slots) in enumerate(found):
        granularity = next((k for k, mark in kinds.items() if mark[members].any()), None) or (
            "group" if position in coarse else _granularity(states, slots)
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


def _coarse(found: Mapping[int, list[tuple[int, int, np.ndarray]]]) -> set[int]:
    """Groups whose indices another group of more units cuts the other way (2 shuffled halves of 32 places each).

    Pruning both would remove a share of what is left after a share: only the finer is an ordinary channel.
    """
    owner: dict[tuple[int, int], dict[int, int]] = {}
    coarse: set[int] = set()
    for position in sorted(found, key=lambda p: -len(found[p][0][2])):
        for state, dim, index in found[position]:
            held = owner.setdefault((state, dim), {})
            for i in index.ravel().tolist():
                if held.setdefault(i, position) != position:
                    coarse.add(position)
    return coarse


def _marked(atoms: Atoms, dims: Sequence[Dim]) -> np.ndarray:
    mark = np.zeros(len(atoms), dtype=bool)
    for dim in dims:
        for column in atoms.expand(dim):
            mark[column] = True
    mark[: atoms.first] = False
    return mark


def _granularity(states: Sequence[State], slots: Sequence[tuple[int, int, np.ndarray]]) -> str:
    """hidden in recurrent modules, channel where convolutions meet (at least one to two linear layers), embed for a
    linear residual stream and the width of a table, neuron between two linear layers.
    """
    owned = [(states[s], d) for s, d, _ in slots if states[s].learned and len(states[s].shape) > 1]
    if any(state.kind == "recurrent" and dim == 0 for state, dim in owned):
        return "hidden"
    linear = [dim for state, dim in owned if len(state.shape) == 2]
    kernels = sum(len(state.shape) > 2 and dim < 2 for state, dim in owned)
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
    for state in states:
        for dim, size in enumerate(state.shape):
            for cause, count in _causes(atoms, state, dim, size).items():
                module = state.names[0].rpartition(".")[0]
                found.append(
                    Frozen(parameter=state.names[0], dim=dim, cause=cause, module=module, count=count)
                )
    return tuple(found)


def _causes(atoms: Atoms, state: State, dim: int, size: int) -> dict[str, int]:
    if state.labels is None:
        return {
            "not reached by the example inputs: nothing is known about it; add an input that uses it": size
        }
    if not state.labels[dim]:
        return {"has a single index": size} if size else {}
    columns = atoms.expand(state.labels[dim])
    still = np.all([c < atoms.first for c in columns], axis=0)
    ids, counts = np.unique(columns[0][still], return_counts=True)
    return {atoms.cause(int(i)): int(n) for i, n in zip(ids, counts, strict=True)}
