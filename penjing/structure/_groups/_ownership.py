"""Which atoms own which slices: atoms that own alike slices form one group.

Blocks of atoms that meet only whole dims are read off at once; the rest is clustered index by index.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penjing.structure._labels._atoms import Atoms, Dim
from penjing.structure._labels._columns import Block, indices_of

Slots = list[tuple[int, int, np.ndarray]]  # (state, dim, index of shape (units, indices per unit))
Members = tuple[np.ndarray, Slots]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One label column of one dim of one state."""

    state: int
    dim: int
    position: int
    column: np.ndarray


@dataclass(frozen=True, slots=True)
class _Table:
    """(atom, slot, index) triples sorted by atom, slot, index, with the label column each comes from.

    A slot stands for all dims that have the same columns.
    """

    atoms: np.ndarray
    slots: np.ndarray
    index: np.ndarray
    columns: np.ndarray


def cluster(atoms: Atoms, labels: Sequence[Sequence[Dim]], kinds: np.ndarray) -> list[Members]:
    """Atoms that own alike slices, by their first atom. `labels` holds the dims of each state.

    Atoms of another kind (`kinds`: int per atom) or label column are not alike: 8 heads and 8 head dims own as many
    indices of the same tensors.
    """
    entries = [
        _Entry(state, dim, position, column)
        for state, dims in enumerate(labels)
        for dim, own in enumerate(dims)
        for position, column in enumerate(atoms.expand(own) if own else ())
    ]
    whole, rest = _apart(atoms, entries, kinds)
    found = [_of_block(atoms, block, own) for block, own in whole.items()]
    found.extend(_index_by_index(atoms, rest, kinds))
    found.sort(key=lambda item: int(item[0][0]))
    return found


def _apart(
    atoms: Atoms, entries: Sequence[_Entry], kinds: np.ndarray
) -> tuple[dict[Block, list[_Entry]], list[_Entry]]:
    """Entries of blocks that are alike throughout, and all others."""
    blocks: dict[Block, list[_Entry]] = {}
    broken: set[Block] = set()
    rest: list[_Entry] = []
    seen: set[int] = set()
    for entry in entries:
        pattern = atoms.pattern(entry.column)
        if pattern is None:
            rest.append(entry)
            if id(entry.column) not in seen:
                seen.add(id(entry.column))
                broken |= atoms.owners(entry.column)
            continue
        own = blocks.setdefault(pattern.block, [])
        if own and (own[-1].state, own[-1].dim) == (entry.state, entry.dim):
            broken.add(pattern.block)
        own.append(entry)
    for block in blocks:
        kind = kinds[block.start : block.start + block.size]
        if (kind != kind[0]).any():
            broken.add(block)
    rest.extend(entry for block in broken for entry in blocks.pop(block, ()))
    return blocks, rest


def _of_block(atoms: Atoms, block: Block, entries: Sequence[_Entry]) -> Members:
    slots: Slots = []
    for entry in entries:
        pattern = atoms.pattern(entry.column)
        assert pattern is not None
        slots.append((entry.state, entry.dim, indices_of(pattern.place)))
    return np.arange(block.start, block.start + block.size, dtype=np.int64), slots


def _index_by_index(atoms: Atoms, entries: Sequence[_Entry], kinds: np.ndarray) -> list[Members]:
    places = _alike(entries)
    owned = _table(atoms, [own for own, _ in places])
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
    roles = owned.columns[starts[first_run]] + 256 * kinds[unique_atoms].astype(np.int64)
    signatures = np.add.reduceat(codes, first_run) + _mix(roles.astype(np.uint64))
    runs_per_atom = np.diff(np.r_[first_run, len(run_atoms)])
    found = []
    shared: dict[tuple[int, bytes], np.ndarray] = {}  # tensors that lie in a row own the same indices
    _, inverse = np.unique(signatures, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(inverse[order])) + 1):
        runs = first_run[members]
        slots = []
        for k in range(int(runs_per_atom[members[0]])):
            at = starts[runs + k]
            width = int(counts[runs[0] + k])
            index = owned.index[at[:, None] + np.arange(width)]
            index = shared.setdefault((width, index.tobytes()), index)
            slots.extend((state, dim, index) for state, dim in places[int(owned.slots[at[0]])][1])
        found.append((unique_atoms[members], sorted(slots, key=lambda slot: slot[:2])))
    return found


def _alike(entries: Sequence[_Entry]) -> list[tuple[list[_Entry], list[tuple[int, int]]]]:
    """Entries of one dim, with all (state, dim) that have the same columns, by the first of these."""
    by_place: dict[tuple[int, int], list[_Entry]] = {}
    for entry in sorted(entries, key=lambda e: (e.state, e.dim)):
        by_place.setdefault((entry.state, entry.dim), []).append(entry)
    found: dict[tuple[tuple[int, int], ...], tuple[list[_Entry], list[tuple[int, int]]]] = {}
    for place, own in by_place.items():
        columns = tuple((e.position, id(e.column)) for e in own)
        found.setdefault(columns, (own, []))[1].append(place)
    return list(found.values())


def _table(atoms: Atoms, slots: Sequence[Sequence[_Entry]]) -> _Table:
    """The table of what `slots` hold, each of which has the entries of one dim."""
    entries = [(slot, e) for slot, own in enumerate(slots) for e in own]
    if not entries:
        empty = np.empty(0, dtype=np.int64)
        return _Table(empty, empty, empty, empty)
    sizes = [len(e.column) for _, e in entries]
    owner = np.concatenate([e.column for _, e in entries])
    slot = np.repeat([slot for slot, _ in entries], sizes)
    index = np.concatenate([np.arange(n) for n in sizes])
    column = np.repeat([e.position for _, e in entries], sizes)
    free = owner >= atoms.first
    owner, slot, index, column = owner[free], slot[free], index[free], column[free]
    order = _order(owner, slot, index, column)
    owner, slot, index, column = owner[order], slot[order], index[order], column[order]
    new = np.r_[True, (np.diff(owner) != 0) | (np.diff(slot) != 0) | (np.diff(index) != 0)][: len(owner)]
    return _Table(owner[new], slot[new], index[new], column[new])


def _order(*keys: np.ndarray) -> np.ndarray:
    """The order of rows of non-negative integers; packed into one integer each where they fit."""
    ranges = [int(key.max()) + 1 if len(key) else 1 for key in keys]
    if math.prod(ranges) >= 2**63:
        return np.lexsort(keys[::-1])
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key, size in zip(keys, ranges, strict=True):
        code = code * size + key
    return np.argsort(code)  # rows of one code are alike


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64 finaliser (Steele et al., OOPSLA 2014), so that sums of codes do not collide."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def coarse(groups: Sequence[Slots]) -> set[int]:
    """Groups whose indices another group of more units cuts the other way (2 shuffled halves of 32 places each).

    Pruning both would remove a share of what is left after a share: only the finer is an ordinary channel.
    """
    places: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for position, slots in enumerate(groups):
        for state, dim, index in slots:
            places.setdefault((state, dim), []).append((position, index))
    found: set[int] = set()
    alike = {tuple((position, id(index)) for position, index in owners): owners for owners in places.values()}
    for owners in alike.values():
        if len(owners) > 1:
            found |= _overlapping(owners)
    return found


def _overlapping(owners: Sequence[tuple[int, np.ndarray]]) -> set[int]:
    """Of the groups in one dim, those that hold an index of a group of more units."""
    taken = np.zeros(max(int(index.max()) for _, index in owners) + 1, dtype=bool)
    found: set[int] = set()
    for position, index in sorted(owners, key=lambda item: -len(item[1])):
        own = index.ravel()
        if taken[own].any():
            found.add(position)
        taken[own] = True
    return found


def shared_heads(found: Sequence[Slots]) -> dict[int, str]:
    """What to call heads that cut the same rows both ways: query heads are (key/value head, place).

    A key/value head takes its queries; places in it are units on request, or a share would go after a share.
    """
    owners: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for position, slots in enumerate(found):
        for state, dim, index in slots:
            owners.setdefault((state, dim), []).append((position, index))
    extent = [sum(index.size for _, _, index in slots) for slots in found]
    kinds: dict[int, str] = {}
    for held in owners.values():
        widest, rows = max(held, key=lambda item: extent[item[0]])
        for position, index in held:
            if extent[position] < extent[widest] and np.isin(index, rows).any():
                kinds[position] = "group"
                kinds.setdefault(widest, "kv_head")
    return kinds
