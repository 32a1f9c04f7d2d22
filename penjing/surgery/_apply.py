"""Replay a plan on a network: a new module with sliced tensors, set attributes and dropped blocks."""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from penjing.core import PlanError, UsageError
from penjing.core._edits import (
    AdjustComponent,
    DropBlock,
    MergeWeight,
    ReplaceComponent,
    ScaleTensor,
    SetAttribute,
)
from penjing.core._plan import Plan
from penjing.structure import (
    alone,
    copied,
    drop_caches,
    every_path,
    fingerprint,
    keep_dense,
    merge_weights,
    named_buffers,
    named_parameters,
    plain_tensors,
    set_attribute,
)
from penjing.surgery._adjustments import change
from penjing.surgery._components import replace_component
from penjing.surgery._records import rebuild_records
from penjing.surgery._rescale import scaled, scalings
from penjing.surgery._slices import as_parameter, slice_tensor


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """A new network with the plan's edits; `model` is left untouched.

    Hooks, tied weights, dtype, device, memory format, `requires_grad` and training modes are kept; works on the
    meta device. Raises `PlanError` when the plan belongs to another network (fingerprints shown) or is malformed.
    """
    if not isinstance(plan, Plan):
        raise UsageError(
            f"plan is a {type(plan).__name__}: give the Plan that prune returned, or pj.Plan.from_json(text)"
        )
    found = fingerprint(model)
    if found != plan.fingerprint:
        raise PlanError(
            f"this plan belongs to another network: it was made for structure {plan.fingerprint[:12]}, this "
            f"{type(model).__name__} is {found[:12]}. Apply it to the network it was planned on, before any change"
        )
    with alone():
        return carry_out(_merged(model, plan), plan)


def carry_out(model: nn.Module, plan: Plan) -> nn.Module:
    """`apply` to a network that the plan is known to belong to, without computed weights."""
    for stage in plan.stages():
        model = carry_out_stage(model, stage)
    return model


def carry_out_stage(model: nn.Module, stage: Plan) -> nn.Module:
    """A new network with the edits of one of a plan's `stages`, which all are adjustments or none is."""
    if any(isinstance(edit, AdjustComponent) for edit in stage.edits):
        adjusted = copied(model, {})
        for edit in stage.edits:
            assert isinstance(edit, AdjustComponent)
            change(adjusted, edit)
        return adjusted
    return _carried_out(model, stage)


def _carried_out(model: nn.Module, plan: Plan) -> nn.Module:
    removed = plan.removed
    memo: dict[int, Any] = {}
    for edit in plan.edits:
        if isinstance(edit, DropBlock):
            block = _submodule(model, edit.module)
            memo[id(block)] = nn.Identity().train(block.training)
    memo.update(_sliced(model, removed, scalings(plan)))
    slim = copied(model, memo)
    for edit in plan.edits:
        if isinstance(edit, ReplaceComponent):
            replace_component(_submodule(slim, edit.module), edit)
        elif isinstance(edit, SetAttribute):
            original = _submodule(model, edit.module)
            set_attribute(_submodule(slim, edit.module), (edit.attribute, *edit.path), edit.value, original)
    changed = {name.rpartition(".")[0] for name in removed}
    for path, module in every_path(slim):
        if path in changed:
            rebuild_records(module)
    keep_dense(slim)
    drop_caches(slim.modules())
    return slim


def _merged(model: nn.Module, plan: Plan) -> nn.Module:
    """The network in whose names the plan speaks: computed weights are plain parameters."""
    merged, merging = merge_weights(model)
    found = {(e.module, e.tensor) for e in merging.edits if isinstance(e, MergeWeight)} if merging else set()
    asked = {(e.module, e.tensor) for e in plan.edits if isinstance(e, MergeWeight)}
    if found != asked:
        odd = sorted(".".join(place) for place in found ^ asked)[:5]
        raise PlanError(
            f"the plan and this {type(model).__name__} do not agree on which weights are computed in the forward "
            f"and must be merged: {odd}"
        )
    return merged


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise PlanError(f"the plan names module {path!r}, which this {type(model).__name__} lacks") from error


def named_states(model: nn.Module, plain: Container[str] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter and buffer under every one of its names, and plain tensor attributes of the given names."""
    named = every_path(model)
    yield from named_parameters(named)
    yield from named_buffers(named)
    yield from ((name, tensor) for name, _, _, tensor in plain_tensors(model) if name in plain)


def _sliced(
    model: nn.Module,
    removed: Mapping[str, Mapping[int, tuple[int, ...]]],
    factors: Mapping[str, Sequence[ScaleTensor]],
) -> dict[int, torch.Tensor]:
    """id of an original tensor -> its smaller or scaled twin, once per tensor however many names it has."""
    tensors = dict(named_states(model, {*removed, *factors}))
    unknown = [name for name in (*removed, *factors) if name not in tensors]
    if unknown:
        raise PlanError(f"the plan names tensors that this {type(model).__name__} lacks: {unknown[:5]}")
    twins: dict[int, torch.Tensor] = {}
    dropped = {name for name, dims in removed.items() if 0 < _size(tensors[name], 0) <= len(dims.get(0, ()))}
    for name, dims in removed.items():
        if name not in dropped and id(tensors[name]) not in twins:
            twins[id(tensors[name])] = slice_tensor(tensors[name], dims, name)
    for name, edits in factors.items():
        if name not in dropped:
            twin = twins.get(id(tensors[name]), tensors[name])
            twins[id(tensors[name])] = rescaled(tensors[name], twin, edits, removed.get(name, {}))
    return twins


def rescaled(
    tensor: torch.Tensor,
    twin: torch.Tensor,
    edits: Sequence[ScaleTensor],
    removed: Mapping[int, tuple[int, ...]],
) -> torch.Tensor:
    """The twin of a tensor with its scalings done; a parameter stays a parameter."""
    data = scaled(twin.detach(), edits, removed)
    return as_parameter(data, tensor) if isinstance(tensor, nn.Parameter) else data


def _size(tensor: torch.Tensor, dim: int) -> int:
    return tensor.shape[dim] if tensor.dim() > dim else 1
