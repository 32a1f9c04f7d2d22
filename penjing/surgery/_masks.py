"""Where a replay of the original masks, and which indices it may leave out because every reader masks them."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from penjing.core import PlanError
from penjing.core._graph import Graph, OpCall, Ref
from penjing.structure import Dim, Structure
from penjing.surgery._contractions import Selection
from penjing.surgery._replay import Masks
from penjing.surgery._statistics import Mask, has_reference

aten = torch.ops.aten

_CONTRACTIONS: dict[object, tuple[str, ...]] = {
    aten.mm: ("m k", "k n", "m n"),
    aten.bmm: ("b m k", "b k n", "b m n"),
    aten.addmm: ("", "m k", "k n", "m n"),
    aten.baddbmm: ("", "b m k", "b k n", "b m n"),
}


def masks_of(structure: Structure, position: int, gone: np.ndarray, device: torch.device) -> Masks:
    """Per call of a trace: indices removed from what it sums over, and indices that it may leave out altogether."""
    graph, losses = structure.traces[position].graph, _Losses(gone, device)
    masks: dict[int, list[Mask]] = {}
    for span in structure.facts[position].spanned:
        call = graph.calls[span.call]
        dim = structure.dims(call.inputs[span.position], position)[span.dim]
        if not dim or losses.of(dim) is None:
            continue
        if span.renormalized and not has_reference(call.op.overloadpacket):
            raise PlanError(
                f"{call.module or 'the network'}: {call.op} spans a removed dim and has no reference; protect it"
            )
        removed = torch.from_numpy(np.flatnonzero(_lost(dim, gone))).to(device)
        masks.setdefault(span.call, []).append(Mask(span.position, span.dim, removed, span.renormalized))
    selections: dict[int, Selection] = {}
    for number, call in enumerate(graph.calls):
        terms = _terms(graph, call) if not any(m.dim > 1 for m in masks.get(number, ())) else None
        found = _selection(structure, position, call, terms, losses) if terms else None
        if found is not None:
            selections[number] = found
            masks.pop(number, None)
    return Masks(masks, selections)


def _terms(graph: Graph, call: OpCall) -> tuple[str, ...] | None:
    """One letter per axis of the arguments and the result; the same letter is the same dim."""
    if call.op.overloadpacket is not aten.convolution:
        return _CONTRACTIONS.get(call.op.overloadpacket)
    if len(call.args) != 9:
        return None
    if int(call.args[8]) == 1:
        return ("b i", "i o" if call.args[6] else "o i", "o", "b o")
    return ("b c", "c", "c", "b c") if _is_depthwise(graph, call) else None


def _is_depthwise(graph: Graph, call: OpCall) -> bool:
    weight, groups = graph.values[call.inputs[1]].shape, int(call.args[8])
    return groups > 1 and weight[:2] == (groups, 1) and not call.args[6]


@dataclass(slots=True)
class _Losses:
    """What dims lose, worked out once for all that share their labels."""

    gone: np.ndarray
    device: torch.device
    known: dict[tuple[int, ...], np.ndarray | None] = field(default_factory=dict)
    kept: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    def of(self, dim: Dim) -> np.ndarray | None:
        """Which indices go; None if none does."""
        key = tuple(map(id, dim))
        if key not in self.known:
            lost = _lost(dim, self.gone)
            self.known[key] = lost if lost.any() else None
        return self.known[key]

    def left(self, several: Mapping[int, np.ndarray]) -> torch.Tensor:
        """The indices that stay where any of these masks removes some."""
        key = tuple(several)
        if key not in self.kept:
            lost = functools.reduce(np.logical_or, several.values())
            self.kept[key] = torch.from_numpy(np.flatnonzero(~lost)).to(self.device)
        return self.kept[key]


def _selection(
    structure: Structure, position: int, call: OpCall, terms: tuple[str, ...], losses: _Losses
) -> Selection | None:
    lost: dict[str, dict[int, np.ndarray]] = {}  # per letter, each mask once
    sizes: dict[str, int] = {}
    places: list[tuple[int, int, str]] = []
    for argument, term in enumerate(terms[:-1]):
        ref = call.args[argument]
        if not isinstance(ref, Ref):
            continue
        dims = structure.dims(ref.value, position)
        for axis, letter in enumerate(term.split()):
            places.append((argument, axis, letter))
            removed = losses.of(dims[axis]) if dims[axis] else None
            if removed is not None:
                lost.setdefault(letter, {})[id(removed)] = removed
                sizes[letter] = len(removed)
    if not lost:
        return None
    kept = {letter: losses.left(several) for letter, several in lost.items()}
    output = terms[-1].split()
    return Selection(
        inputs=tuple((a, x, kept[letter]) for a, x, letter in places if letter in kept),
        outputs=tuple((x, kept[letter], sizes[letter]) for x, letter in enumerate(output) if letter in kept),
        addend=0 if terms[0] else len(output),
        groups=len(kept["c"]) if "c" in kept else 0,
    )


def _lost(dim: Dim, gone: np.ndarray) -> np.ndarray:
    lost = gone[dim[0]]
    for column in dim[1:]:
        lost = lost | gone[column]
    return lost


def kept_part(tensor: torch.Tensor, dims: tuple[Dim, ...], gone: np.ndarray) -> torch.Tensor:
    """A value of the original without its removed indices."""
    for axis, dim in enumerate(dims):
        if dim:
            kept = torch.from_numpy(np.flatnonzero(~_lost(dim, gone))).to(tensor.device)
            tensor = tensor.index_select(axis, kept)
    return tensor
