"""Float64 exactness: the smaller network's own forward against the masked original."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from penjing.core import PlanError
from penjing.core._graph import Graph
from penjing.core._plan import Plan
from penjing.structure import (
    Dim,
    Structure,
    Trace,
    call_with,
    kept_size,
    no_leftovers,
    output_tensors,
    trace_forward,
)
from penjing.surgery._apply import named_states, slice_tensor
from penjing.surgery._replay import DOUBLES, Mask, has_reference, replay
from penjing.surgery._rescale import scaled, scalings

TOLERANCE = 1e-9
FAINT = 1e-7  # outputs much smaller than 1 must agree to this share of their own size


def exactness(
    base: nn.Module,
    slim: nn.Module,
    structure: Structure,
    plan: Plan,
    gone: np.ndarray,
    example_inputs: Any,
) -> float:
    generator = torch.Generator().manual_seed(0)
    states = {name: _visible(name, tensor, generator) for name, tensor in _unique_states(base).items()}
    small = _with_states(slim, states, plan)
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    worst = 0.0
    for position, example in enumerate(examples):
        inputs = tree_map_only(torch.Tensor, lambda t: _random_like(t, generator), example)
        with _float64(), no_leftovers(slim):
            ours = output_tensors(call_with(small, _copied(inputs)))
            theirs = _masked(structure, position, states, inputs, gone)
            if any(not t.is_floating_point() for t in ours):
                ours += _feeding(slim, small, example, inputs)
                theirs += _masked(structure, position, states, inputs, gone, feeding=True)
        worst = max(worst, _largest_error(ours, theirs))
    return worst


def _float_feeds(graph: Graph) -> list[int]:
    """Float values that integer and boolean values are computed from: argmax and thresholds hide differences."""
    found: dict[int, None] = {}
    for call in graph.calls:
        if any("float" not in graph.values[v].dtype for v in call.outputs):
            found.update(dict.fromkeys(v for v in call.inputs if "float" in graph.values[v].dtype))
    return list(found)


def _feeding(slim: nn.Module, small: nn.Module, example: Any, inputs: Any) -> list[torch.Tensor]:
    """The smaller network's own float values before anything discrete, replayed from its own graph."""
    traced = trace_forward(slim, example)
    states = {name: tensor.detach() for name, tensor in named_states(small)}
    tensors = _tensors(traced, states, inputs)
    return replay(traced.graph, tensors, {}, _float_feeds(traced.graph))


def _unique_states(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _visible(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The tensor in float64; constant, tiny or absent (meta) values are replaced by random ones."""
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.detach().clone()
    if not tensor.is_meta:
        double = tensor.detach().double()
        if tensor.numel() == 1 and double.abs().item() > 1e-3:
            return double
        if tensor.numel() > 1 and double.std() > 1e-3 and torch.isfinite(double).all():
            return double
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    device = "cpu" if tensor.is_meta else tensor.device
    if tensor.dim() > 1:
        return (noise / max(1.0, tensor.numel() / max(1, tensor.shape[0])) ** 0.5).to(device)
    positive = name.endswith(("weight", "var", "gamma"))
    return (1 + 0.2 * noise.clamp(-3, 3) if positive else 0.2 * noise).to(device)


def _with_states(slim: nn.Module, states: Mapping[str, torch.Tensor], plan: Plan) -> nn.Module:
    """A float64 copy of `slim` whose tensors are slices of `states`, scaled as the plan says."""
    memo: dict[int, Any] = {}
    removed, factors = plan.removed, scalings(plan)
    for name, tensor in (*slim.named_parameters(), *slim.named_buffers()):
        if name in states:
            lost = removed.get(name, {})
            twin = scaled(slice_tensor(states[name], lost, name).detach(), factors.get(name, ()), lost)
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
    """Random float64 values; an example without negative values stays without them (logarithms, roots)."""
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128)
    if not tensor.is_floating_point():
        return tensor.clone()
    device = "cpu" if tensor.is_meta else tensor.device
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(device)
    positive = not tensor.is_meta and tensor.numel() and tensor.min() >= 0
    return noise.abs() * max(1e-3, tensor.double().abs().max().item()) if positive else noise


def _copied(inputs: Any) -> Any:
    return tree_map_only(torch.Tensor, torch.clone, inputs)


def _masked(
    structure: Structure,
    position: int,
    states: Mapping[str, torch.Tensor],
    inputs: Any,
    gone: np.ndarray,
    feeding: bool = False,
) -> list[torch.Tensor]:
    """The masked network's outputs, or the kept indices of what feeds its discrete values."""
    traced = structure.traces[position]
    tensors = _tensors(traced, states, inputs)
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    masks = _masks(structure, position, gone, device)
    if not feeding:
        return replay(traced.graph, tensors, masks, traced.graph.outputs)
    wanted = _float_feeds(traced.graph)
    found = replay(traced.graph, tensors, masks, wanted)
    return [_without(t, structure.dims(v, position), gone) for t, v in zip(found, wanted, strict=True)]


def _without(tensor: torch.Tensor, dims: Sequence[Dim], gone: np.ndarray) -> torch.Tensor:
    for axis, dim in enumerate(dims):
        if dim:
            kept = np.flatnonzero(~np.any([gone[c] for c in dim], axis=0))
            tensor = tensor.index_select(axis, torch.from_numpy(kept).to(tensor.device))
    return tensor


def _tensors(traced: Trace, states: Mapping[str, torch.Tensor], inputs: Any) -> dict[int, torch.Tensor]:
    graph = traced.graph
    tensors = {graph.states[name]: tensor.clone() for name, tensor in states.items()}
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    leaves = [t for t in tree_leaves(_copied(inputs)) if isinstance(t, torch.Tensor)]
    tensors.update(zip(graph.inputs, leaves, strict=True))
    for value, tensor in traced.constants.items():
        tensors[value] = tensor.to(device, DOUBLES.get(tensor.dtype, tensor.dtype), copy=True)
    return tensors


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
    """Casts to a reduced float type inside the network, and its literals, are promoted to float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {k: _doubled(v) for k, v in (kwargs or {}).items()}
        if func is torch.ops.aten.lift_fresh.default:  # a number written in the code, perhaps as float32
            return args[0].to(DOUBLES.get(args[0].dtype, args[0].dtype))
        return func(*map(_doubled, args), **kwargs)


def _doubled(item: Any) -> Any:
    return DOUBLES.get(item, item) if isinstance(item, torch.dtype) else item


@contextmanager
def _float64() -> Any:
    before = torch.get_default_dtype()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.set_default_dtype(torch.float64)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), _PromoteCasts():
            yield
    finally:
        torch.set_default_dtype(before)
        torch.backends.mha.set_fastpath_enabled(fast)
