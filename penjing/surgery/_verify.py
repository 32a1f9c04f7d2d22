"""Proof that a smaller network equals the masked one: strict re-trace, then float64 exactness."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from penjing.core import PenjingError, PlanError, TraceError
from penjing.core._graph import OpCall
from penjing.core._plan import DropBlock, Plan
from penjing.structure import ExampleInputs, Structure, Trace, call_with, kept_size, trace, trace_forward
from penjing.surgery._apply import apply, named_states, slice_tensor
from penjing.surgery._replay import REDUCED, Mask, has_reference, replay

TOLERANCE = 1e-9
FAINT = 1e-7  # outputs much smaller than 1 must agree to this share of their own size


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Whether a smaller network is proven equal to the masked original.

    `max_error` is max|difference| / max(1, max|reference|) over all outputs in float64 (NaN when the check did
    not get that far); `checked` names the groups that lost units; `cause` says what failed, empty when passed.
    It says nothing about accuracy.
    """

    passed: bool
    max_error: float
    checked: tuple[str, ...]
    cause: str = ""


def verify(
    model: nn.Module, slim: nn.Module, plan: Plan, example_inputs: ExampleInputs | list[ExampleInputs]
) -> Verification:
    """Check `slim` against `model` under `plan`. Refuses (not passed) weights that are not the original's slices.

    1. The plan removes whole units of the network's own groups. 2. Every tensor of `slim` is, bit for bit, the
    original's slice. 3. A re-trace of `slim` has the same op sequence and every predicted shape. 4. In float64, on
    random float inputs, `slim` equals the original's graph with the removed indices masked, to 1e-9. Constant or
    tiny parameters (zero-initialised heads, layer scales) are randomised in both for this check.
    """
    try:
        base = _with_drops(model, plan)
        structure = trace(base, example_inputs)
        return check(base, slim, structure, plan, example_inputs, expected=apply(model, plan))
    except PenjingError as error:
        return Verification(passed=False, max_error=float("nan"), checked=(), cause=str(error))


def _with_drops(model: nn.Module, plan: Plan) -> nn.Module:
    """The original with only the plan's dropped blocks applied."""
    drops = tuple(e for e in plan.edits if isinstance(e, DropBlock))
    return apply(model, replace(plan, edits=drops)) if drops else model


def check(
    base: nn.Module,
    slim: nn.Module,
    structure: Structure,
    plan: Plan,
    example_inputs: Any,
    *,
    expected: nn.Module | None = None,
    exact: bool = True,
) -> Verification:
    """`verify` with the base network's structure already known; `exact=False` stops after the re-trace."""
    removed = plan.removed
    dropped = set(plan.dropped)
    units = _removed_units(structure, removed, dropped)
    gone = structure.gone(units)
    checked = tuple(units)

    def failed(cause: str, error: float = float("nan")) -> Verification:
        return Verification(passed=False, max_error=error, checked=checked, cause=cause)

    cause = _foreign_weights(slim, expected) if expected is not None else ""
    if cause:
        return failed(cause)
    try:
        cause = _structural_difference(slim, structure, gone, example_inputs)
        if cause or not exact:
            return (
                failed(cause) if cause else Verification(passed=True, max_error=float("nan"), checked=checked)
            )
        error = _exactness(base, slim, structure, removed, gone, example_inputs)
    except (TraceError, RuntimeError) as error:
        return failed(f"the smaller network does not run: {error}")
    if not error <= TOLERANCE:
        return failed(
            f"outputs differ from the masked network by {error:.2e} (allowed: {TOLERANCE:.0e})", error
        )
    return Verification(passed=True, max_error=error, checked=checked)


def _removed_units(
    structure: Structure, removed: Mapping[str, Mapping[int, tuple[int, ...]]], dropped: set[str]
) -> dict[str, list[int]]:
    """Which whole units the plan removes. Raises `PlanError` if it removes anything else."""
    units: dict[str, list[int]] = {}
    covered: dict[tuple[str, int], set[int]] = {}
    aliases = {s.names[0]: s.names for s in structure.states}
    for group in structure.groups:
        lost = np.ones(len(group), dtype=bool)
        for slot in group.slots:
            gone = removed.get(slot.name, {}).get(slot.dim, ())
            lost &= np.isin(slot.index, gone).all(1) if len(gone) else False
        if lost.any():
            units[group.name] = np.flatnonzero(lost).tolist()
            for slot in group.slots:
                for name in aliases[slot.name]:
                    covered.setdefault((name, slot.dim), set()).update(slot.index[lost].ravel().tolist())
    known = {name for names in aliases.values() for name in names}
    for name, dims in removed.items():
        if any(name.startswith(f"{path}.") for path in dropped) and name not in known:
            continue
        for dim, indices in dims.items():
            extra = set(indices) - covered.get((name, dim), set())
            if extra:
                raise PlanError(
                    f"the plan removes index {min(extra)} of dim {dim} of {name!r} without its whole unit"
                )
    return units


def _foreign_weights(slim: nn.Module, expected: nn.Module) -> str:
    ours, theirs = dict(named_states(slim)), dict(named_states(expected))
    if ours.keys() != theirs.keys():
        return f"tensors differ from the plan's: {sorted(ours.keys() ^ theirs.keys())[:5]}"
    for name, tensor in theirs.items():
        other = ours[name]
        if other.shape != tensor.shape:
            return f"{name!r} has shape {tuple(other.shape)}, the plan gives {tuple(tensor.shape)}"
        if (
            not tensor.is_meta
            and not torch.equal(other.to(tensor.device), tensor)
            and not _both_nan(other, tensor)
        ):
            return f"{name!r} is not the original's slice: weights were trained or changed after pruning; verify before"
    return ""


def _both_nan(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.is_floating_point() and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b.to(a.device)))


def _structural_difference(
    slim: nn.Module, structure: Structure, gone: np.ndarray, example_inputs: Any
) -> str:
    """The first place where a re-trace departs from the prediction, or nothing."""
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    for position, example in enumerate(examples):
        found = trace_forward(slim, example)
        cause = _first_difference(structure, position, found, gone)
        if cause:
            return cause
    return ""


def _first_difference(structure: Structure, position: int, found: Trace, gone: np.ndarray) -> str:
    old, new = structure.traces[position].graph, found.graph
    ours_run, theirs_run = _computations(new.calls), _computations(old.calls)
    for before, after in zip(theirs_run, ours_run, strict=False):
        if before.op is not after.op and not {before.op, after.op} <= _VIEWS:
            return f"{after.module}: runs {after.op} where the original runs {before.op}"
        if _floats(before) != _floats(after):
            return (
                f"{after.module}: {after.op} uses constants {_floats(after)}, the original {_floats(before)}"
            )
        for ours, theirs in zip(after.outputs, before.outputs, strict=True):
            shape = structure.shape_after(theirs, gone, position)
            if new.values[ours].shape != shape:
                return (
                    f"{after.module}: {after.op} gives shape {new.values[ours].shape}, predicted was {shape}"
                )
    if len(theirs_run) != len(ours_run):
        return f"it runs {len(ours_run)} operations, the original {len(theirs_run)}"
    return ""


_COPIES = {torch.ops.aten.clone.default, torch.ops.aten.alias.default}
_VIEWS = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default}


def _computations(calls: Sequence[OpCall]) -> list[OpCall]:
    """The calls without copies: whether `contiguous` copies depends on a size being 1, not on the computation."""
    return [call for call in calls if call.op not in _COPIES]


def _floats(call: OpCall) -> list[float]:
    return [a for a in (*call.args, *call.kwargs.values()) if isinstance(a, float)]


def _exactness(
    base: nn.Module,
    slim: nn.Module,
    structure: Structure,
    removed: Mapping[str, Mapping[int, tuple[int, ...]]],
    gone: np.ndarray,
    example_inputs: Any,
) -> float:
    generator = torch.Generator().manual_seed(0)
    states = {name: _visible(name, tensor, generator) for name, tensor in _unique_states(base).items()}
    small = _with_states(slim, states, removed)
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    worst = 0.0
    for position, example in enumerate(examples):
        inputs = tree_map_only(torch.Tensor, lambda t: _random_like(t, generator), example)
        with _float64():
            ours = [t for t in tree_leaves(call_with(small, _copied(inputs))) if isinstance(t, torch.Tensor)]
            theirs = _masked_outputs(structure, position, states, inputs, gone)
        worst = max(worst, _largest_error(ours, theirs))
    return worst


def _unique_states(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _visible(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The tensor in float64; constant, tiny or absent (meta) values are replaced by random ones."""
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.detach().clone()
    if not tensor.is_meta:
        double = tensor.detach().double()
        if tensor.numel() == 1 or (double.std() > 1e-3 and torch.isfinite(double).all()):
            return double
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    device = "cpu" if tensor.is_meta else tensor.device
    if tensor.dim() > 1:
        return (noise / max(1.0, tensor.numel() / tensor.shape[0]) ** 0.5).to(device)
    positive = name.endswith(("weight", "var", "gamma"))
    return (1 + 0.2 * noise.clamp(-3, 3) if positive else 0.2 * noise).to(device)


def _with_states(
    slim: nn.Module, states: Mapping[str, torch.Tensor], removed: Mapping[str, Any]
) -> nn.Module:
    """A float64 copy of `slim` whose tensors are slices of `states`."""
    memo: dict[int, Any] = {}
    for name, tensor in (*slim.named_parameters(), *slim.named_buffers()):
        if name in states:
            twin = slice_tensor(states[name], removed.get(name, {}), name)
            memo[id(tensor)] = (
                nn.Parameter(twin, False)
                if isinstance(tensor, nn.Parameter) and twin.is_floating_point()
                else twin
            )
    small = copy.deepcopy(slim, memo)
    for module, traced in zip(small.modules(), slim.modules(), strict=True):
        if isinstance(module, nn.RMSNorm) and isinstance(traced, nn.RMSNorm) and module.eps is None:
            dtype = traced.weight.dtype if traced.weight is not None else torch.get_default_dtype()
            module.eps = torch.finfo(dtype).eps  # None means the eps of the dtype: it is part of the network
        for name, value in module.__dict__.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                module.__dict__[name] = value.double()
    return small.double().eval()


def _random_like(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.clone()
    return torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(
        "cpu" if tensor.is_meta else tensor.device
    )


def _copied(inputs: Any) -> Any:
    return tree_map_only(torch.Tensor, torch.clone, inputs)


def _masked_outputs(
    structure: Structure, position: int, states: Mapping[str, torch.Tensor], inputs: Any, gone: np.ndarray
) -> list[torch.Tensor]:
    traced = structure.traces[position]
    graph = traced.graph
    tensors = {graph.states[name]: tensor.clone() for name, tensor in states.items()}
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    leaves = [t for t in tree_leaves(_copied(inputs)) if isinstance(t, torch.Tensor)]
    tensors.update(zip(graph.inputs, leaves, strict=True))
    tensors.update(
        {v: (t.double() if t.dtype in REDUCED else t).to(device) for v, t in traced.constants.items()}
    )
    return replay(graph, tensors, _masks(structure, position, gone, device))


def _masks(
    structure: Structure, position: int, gone: np.ndarray, device: torch.device
) -> dict[int, list[Mask]]:
    graph, found = structure.traces[position].graph, {}
    for span in structure.facts[position].spanned:
        call = graph.calls[span.call]
        dim = structure.dims(call.inputs[span.position], position)[span.dim]
        if not dim or kept_size(dim, gone) == len(dim[0]):
            continue
        if span.renormalized and not has_reference(call.op.overloadpacket):
            raise PlanError(f"{call.module}: {call.op} spans a removed dim and has no reference; protect it")
        lost = np.any([gone[c] for c in dim], axis=0)
        removed = torch.from_numpy(np.flatnonzero(lost)).to(device)
        found.setdefault(span.call, []).append(Mask(span.position, span.dim, removed, span.renormalized))
    return found


def _largest_error(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> float:
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if not a.numel():
            continue
        reference = b.double().abs().max().item()
        difference = (a.double() - b.double()).abs().max().item()
        if not difference <= max(FAINT * reference, FAINT**2):
            return float("inf") if difference != difference else max(difference, TOLERANCE * 2)
        worst = max(worst, difference / max(1.0, reference))
    return worst


class _PromoteCasts(TorchDispatchMode):
    """Casts to a reduced float type inside the network are promoted to float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = (
            {k: torch.float64 if v in REDUCED else v for k, v in (kwargs or {}).items()} if kwargs else {}
        )
        return func(
            *[torch.float64 if isinstance(a, torch.dtype) and a in REDUCED else a for a in args], **kwargs
        )


@contextmanager
def _float64() -> Any:
    before = torch.get_default_dtype()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), _PromoteCasts():
            yield
    finally:
        torch.set_default_dtype(before)
        torch.backends.mha.set_fastpath_enabled(fast)
