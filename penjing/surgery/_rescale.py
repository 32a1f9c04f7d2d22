"""Keep the original's constants: fold what the code's own constants lack into the weights."""

from collections.abc import Iterator, Mapping, Sequence

import torch

from penjing.core import PlanError
from penjing.core._edits import ScaleTensor
from penjing.core._plan import Plan
from penjing.structure import Structure, Trace
from penjing.surgery._constants import Difference, differing_constants
from penjing.surgery._folding import fold
from penjing.surgery._homogeneous import Need


def rescaling(structure: Structure, found: Sequence[Trace]) -> tuple[ScaleTensor, ...] | None:
    """Edits after which the re-traced network computes with the original's constants; None if there are none such.

    `found` are re-traces of the smaller network, aligned with `structure.traces`; nothing to do gives no edits.
    """
    merged: dict[tuple[str, int, tuple[int, ...] | None], ScaleTensor] = {}
    for before, after in zip(structure.traces, found, strict=False):
        differences = list(differing_constants(before, after))
        edits = _edits(structure, before, differences) if differences else ()
        if edits is None:
            return None
        for edit in edits:
            known = merged.setdefault((edit.name, edit.dim, edit.indices), edit)
            if abs(known.factor - edit.factor) > 1e-12 * edit.factor:
                return None
    return tuple(merged.values())


def _edits(
    structure: Structure, before: Trace, differences: Sequence[Difference]
) -> tuple[ScaleTensor, ...] | None:
    graph = before.graph
    parameters = (graph.states[state.names[0]] for state in structure.states if state.learned)
    learned = {v for v in parameters if "float" in graph.values[v].dtype}
    if not all(d.sites for d in differences):
        return None
    factors = fold(graph, [d.sites for d in differences], learned)
    if factors is None:
        return None
    found: list[ScaleTensor] = []
    for value, need in factors.items():
        varying = [d for d, n in enumerate(need.shape) if n > 1]
        if len(varying) > 1:
            return None
        found.extend(_of_one(graph.names[value][0], varying[0] if varying else None, need))
    return tuple(found)


def _of_one(name: str, dim: int | None, need: Need) -> Iterator[ScaleTensor]:
    flat = need.flatten().nan_to_num(nan=1.0)
    if dim is None:
        yield ScaleTensor(name=name, dim=0, indices=None, factor=flat.item())
        return
    for factor in flat.unique().tolist():
        if factor != 1:
            at = (flat == factor).nonzero().flatten().tolist()
            yield ScaleTensor(name=name, dim=dim, indices=tuple(at), factor=factor)


def scaled(
    tensor: torch.Tensor, edits: Sequence[ScaleTensor], removed: Mapping[int, tuple[int, ...]]
) -> torch.Tensor:
    """A sliced tensor with its scalings done, in order; `removed` are the original indices it lost, by dim."""
    for edit in edits:
        if not tensor.is_floating_point() or edit.dim >= max(1, tensor.dim()):
            raise PlanError(f"the plan scales dim {edit.dim} of {edit.name!r}, which it does not fit")
        if edit.indices is None:
            tensor = tensor * edit.factor
            continue
        lost = set(removed.get(edit.dim, ()))
        size = tensor.shape[edit.dim] + len(lost)
        if edit.indices and edit.indices[-1] >= size:
            raise PlanError(f"the plan scales index {edit.indices[-1]} of {edit.name!r}, which has {size}")
        kept = [i for i in range(size) if i not in lost]
        asked = set(edit.indices)
        chosen = torch.tensor([k for k, i in enumerate(kept) if i in asked], device=tensor.device).long()
        part = tensor.index_select(edit.dim, chosen) * edit.factor
        tensor = tensor.index_copy(edit.dim, chosen, part)
    return tensor


def scalings(plan: Plan) -> Mapping[str, tuple[ScaleTensor, ...]]:
    """Tensor name -> its scalings, in order."""
    found: dict[str, tuple[ScaleTensor, ...]] = {}
    for edit in plan.edits:
        if isinstance(edit, ScaleTensor):
            found[edit.name] = (*found.get(edit.name, ()), edit)
    return found


def same_scalings(plan: Plan, edits: Sequence[ScaleTensor]) -> bool:
    """Whether the plan scales every kept index as `edits` do, however the factors are written down."""
    removed = plan.removed
    one = _net([e for found in scalings(plan).values() for e in found], removed)
    two = _net(edits, removed)
    return one.keys() == two.keys() and all(abs(one[k] - two[k]) <= 1e-9 * two[k] for k in one)


def _net(
    edits: Sequence[ScaleTensor], removed: Mapping[str, Mapping[int, tuple[int, ...]]]
) -> dict[tuple[str, int, int], float]:
    found: dict[tuple[str, int, int], float] = {}
    for edit in edits:
        lost = set(removed.get(edit.name, {}).get(edit.dim, ()))
        for index in (-1,) if edit.indices is None else edit.indices:
            if index not in lost:
                key = (edit.name, edit.dim, index)
                found[key] = found.get(key, 1.0) * edit.factor
    return found
