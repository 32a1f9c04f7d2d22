"""Indices that the example inputs cut away before anything reads them stay: another input may read them.

Position tables and causal masks are longer than the sequences they are cut for (`table[:, :n]`). Channels flattened
with their places and cut where no size says (`x.flatten(1)[:, :24]`) are others at another extent.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from penjing.core._graph import Graph, OpCall
from penjing.structure._labels._atoms import Atoms, Dim
from penjing.structure._rules import Facts

aten = torch.ops.aten
CUTS = {aten.slice, aten.slice_copy, aten.narrow, aten.select, aten.select_copy}
CAUSE = (
    "cut away before it is read: the example inputs read a part of this dim only; add an input that reads all "
    "of it (a longer one, where it holds positions)"
)
SHIFTING = (
    "cut at a place that no size says, where channels are flattened with their places: which channels lie there "
    "depends on how many places the input has"
)


def freeze_unread(all_facts: Sequence[Facts], graphs: Sequence[Graph]) -> None:
    """Freeze what slices left out and no call of any trace reads. One walk over the calls, less where all is read."""
    atoms = all_facts[0].atoms
    _freeze_shifting(all_facts, graphs[0])
    unread = _left_out(atoms, [cut for facts in all_facts for cut in facts.cuts])
    of_data = _left_out(atoms, [cut for facts in all_facts for cut in facts.data_cuts])
    if of_data.any():
        unread |= of_data & _held(atoms, [dim for facts in all_facts for dim in facts.flattened])
    if not unread.any():
        return
    for facts, graph in zip(all_facts, graphs, strict=True):
        if _strike_read(facts, graph, unread):
            return
    rest = np.flatnonzero(unread)
    if rest.size:
        atoms.freeze((rest,), CAUSE)


def _freeze_shifting(all_facts: Sequence[Facts], graph: Graph) -> None:
    """Freeze channels flattened with places and cut, unless a weight says how many places there are."""
    atoms = all_facts[0].atoms
    cut = _repeated(atoms, [dim for facts in all_facts for dim, *_ in facts.data_cuts])
    if cut.any():
        cut &= _held(atoms, [dim for facts in all_facts for dim in facts.flattened])
    if cut.any():
        labels = all_facts[0].labels
        cut &= ~_repeated(atoms, [dim for value in graph.names for dim in labels[value]])
    if cut.any():
        atoms.freeze((np.flatnonzero(cut),), SHIFTING)


def _repeated(atoms: Atoms, dims: Sequence[Dim]) -> np.ndarray:
    """Which atoms hold several indices of one of these dims."""
    found = np.zeros(len(atoms), dtype=bool)
    for dim in dims:
        for column in atoms.expand(dim):
            own, count = np.unique(column, return_counts=True)
            found[own[count > 1]] = True
    found[: atoms.first] = False
    return found


def _left_out(atoms: Atoms, cuts: Sequence[tuple[Dim, int, int]]) -> np.ndarray:
    """Which atoms these cuts leave out."""
    found = np.zeros(len(atoms), dtype=bool)
    for dim, first, last in cuts:
        for column in atoms.expand(dim):
            found[column[:first]] = found[column[last:]] = True
    found[: atoms.first] = False
    return found


def _held(atoms: Atoms, dims: Sequence[Dim]) -> np.ndarray:
    """Which atoms these dims hold."""
    found = np.zeros(len(atoms), dtype=bool)
    for dim in dims:
        for column in atoms.expand(dim):
            found[column] = True
    return found


def _strike_read(facts: Facts, graph: Graph, unread: np.ndarray) -> bool:
    """Take what this graph reads out of `unread`; True once nothing is left."""
    hits = _hits(facts, unread)
    for call in graph.calls:
        if call.op.overloadpacket in CUTS or not call.inputs:
            continue
        seen = _of(call.inputs, hits, facts)
        if not seen:
            continue
        read = _struck(call, seen, hits, facts)
        if read.size:
            unread[read] = False
            if not unread.any():
                return True
    return False


def _hits(facts: Facts, unread: np.ndarray) -> Callable[[Dim], np.ndarray]:
    """Which of the unread atoms a dim holds; dims share their columns, so each is looked at once."""
    known: dict[int, tuple[Dim, np.ndarray]] = {}
    none = np.empty(0, dtype=np.int64)

    def found(dim: Dim) -> np.ndarray:
        if not dim:
            return none
        key = id(dim[0]) if len(dim) == 1 else id(dim)
        if key not in known:
            columns = facts.atoms.expand(dim)
            own = [c[unread[c]] for c in columns]
            known[key] = (dim, np.unique(np.concatenate(own)) if any(o.size for o in own) else none)
        return known[key][1]

    return found


def _of(values: Sequence[int], hits: Callable[[Dim], np.ndarray], facts: Facts) -> list[np.ndarray]:
    return [h for value in values for dim in facts.labels[value] if (h := hits(dim)).size]


def _struck(
    call: OpCall, seen: list[np.ndarray], hits: Callable[[Dim], np.ndarray], facts: Facts
) -> np.ndarray:
    """Atoms that a call takes in and does not hand on: it reads them."""
    handed = _of(call.outputs, hits, facts)
    inside = np.unique(np.concatenate(seen))
    if call.op._schema.is_mutable:
        return inside
    return np.setdiff1d(inside, np.concatenate(handed)) if handed else inside
