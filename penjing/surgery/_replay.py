"""Run a traced graph on real tensors with removed indices masked: the reference a smaller network must equal.

Removed indices do not reach what they are summed into: they are zero before a contraction or, which is the same, left
out of it. What a contraction would compute for removed indices is arbitrary numbers instead: whatever reads them
unmasked shows. Where statistics span a removed dim, they are taken over the kept indices.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.surgery._contractions import Selection, by_definition, contracted
from penjing.surgery._precision import DOUBLE, Precision
from penjing.surgery._revival import Follower
from penjing.surgery._statistics import Mask, kept_statistics

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Masks:
    """What is masked and what is left out, per call index."""

    masks: Mapping[int, Sequence[Mask]] = field(default_factory=dict)
    selections: Mapping[int, Selection] = field(default_factory=dict)


def replay(
    graph: Graph,
    tensors: Mapping[int, torch.Tensor],
    masks: Masks,
    wanted: Sequence[int],
    precision: Precision = DOUBLE,
    follower: Follower | None = None,
) -> list[torch.Tensor]:
    """The values `wanted` from `tensors` (inputs, states and constants by value id), all in one precision.

    Calls whose results are given do not run. States may come in their own float type: they are cast where they are
    used. Other values are freed after their last use.
    """
    held: dict[int, torch.Tensor] = dict(tensors)
    for value in mutated_states(graph):
        if value in held:
            held[value] = precision.cast(held[value]).clone()
    last_use = {value: position for position, call in enumerate(graph.calls) for value in call.inputs}
    keep = set(wanted)
    device = next((t.device for t in tensors.values() if t.is_floating_point()), torch.device("cpu"))
    for position, call in enumerate(graph.calls):
        if call.outputs and all(value in tensors for value in call.outputs):
            continue
        if call.op is aten._linalg_check_errors.default:  # of what is removed, too
            continue
        given = follower.before(position, call, held) if follower is not None else None
        seen = {**held, **given} if given else held
        selection = masks.selections.get(position)
        if selection is not None:
            result = _select(call, seen, selection, device, precision)
        else:
            result = _step(call, seen, masks.masks.get(position, ()), device, precision)
        several = result if isinstance(result, (tuple, list)) else (result,)
        results = [r for r in several if isinstance(r, torch.Tensor)]
        held.update(zip(call.outputs, results, strict=False))
        if follower is not None and results:
            follower.after(position, call, results[0])
        for value in (*call.inputs, *call.outputs):
            if last_use.get(value, position) == position and value not in keep:
                held.pop(value, None)
    return [precision.cast(held[value]) for value in wanted]


def mutated_states(graph: Graph) -> Iterable[int]:
    """States that an in-place op writes to, itself or through a view."""
    root: dict[int, int] = {value: value for value in graph.names}
    found: dict[int, None] = {}
    for call in graph.calls:
        if not call.inputs or call.inputs[0] not in root:
            continue
        if call.op._schema.is_mutable:
            found[root[call.inputs[0]]] = None
        if call.op._schema.is_mutable or call.op.overloadpacket in _VIEWS:
            root.update(dict.fromkeys(call.outputs, root[call.inputs[0]]))
    return found


_VIEWS = {
    aten.t, aten.transpose, aten.permute, aten.view, aten._unsafe_view, aten.unsqueeze, aten.squeeze, aten.detach,
    aten.alias, aten.expand, aten.select, aten.slice, aten.split, aten.split_with_sizes, aten.unbind, aten.unsafe_split,
    aten.unsafe_split_with_sizes, aten.as_strided_,
}  # fmt: skip
_TAKES_ROWS = {aten.embedding, aten.index_select}  # what they take is cast, and not what they take it from
_UNCAST = _VIEWS | _TAKES_ROWS


def _select(
    call: OpCall,
    held: Mapping[int, torch.Tensor],
    selection: Selection,
    device: torch.device,
    precision: Precision,
) -> torch.Tensor:
    args = [fill(a, held, device, precision) for a in call.args]
    kwargs = {k: fill(v, held, device, precision) for k, v in call.kwargs.items()}
    return contracted(call, args, kwargs, selection, precision)


def _step(
    call: OpCall,
    held: dict[int, torch.Tensor],
    masks: Sequence[Mask],
    device: torch.device,
    precision: Precision,
) -> Any:
    if call.op.overloadpacket not in _UNCAST:
        for value in call.inputs:
            if held[value].dtype in precision.dtypes:
                held[value] = precision.cast(held[value])
    inputs = {value: held[value] for value in call.inputs}
    renormalized = [m for m in masks if m.renormalized] if masks else ()
    for mask in masks:
        if not mask.renormalized:
            value = call.inputs[mask.position]
            inputs[value] = inputs[value].index_fill(mask.dim, mask.removed, 0)
    args = [fill(a, inputs, device, precision) for a in call.args]
    kwargs = {k: fill(v, inputs, device, precision) for k, v in call.kwargs.items()} if call.kwargs else {}
    if renormalized:
        return kept_statistics(call, args, kwargs, renormalized)
    if call.op.overloadpacket is aten.as_strided_ and tuple(args[0].shape) == tuple(args[1]):
        return args[0]
    if call.op is aten.view.default:
        return args[0].reshape(args[1])  # a reference formula may lay its result out in another way
    result = by_definition(call.op, args, kwargs)
    return precision.cast(result) if call.op.overloadpacket in _TAKES_ROWS else result


_AS_THEY_ARE = {int, float, bool, type(None)}


def fill(item: Any, inputs: Mapping[int, torch.Tensor], device: torch.device, precision: Precision) -> Any:
    """A recorded argument with tensors in the place of references, in the proof's precision on `device`."""
    kind = type(item)
    if kind is Ref:
        return inputs[item.value]
    if kind in _AS_THEY_ARE:
        return item
    if kind is tuple:
        return [i if type(i) is int else fill(i, inputs, device, precision) for i in item]
    if isinstance(item, torch.dtype):
        return precision.dtypes.get(item, item)
    if isinstance(item, torch.device):
        return device
    return item
