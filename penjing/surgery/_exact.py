"""Float64 exactness: the smaller network's own forward against the masked original."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from penjing.core._graph import Graph
from penjing.core._plan import Plan
from penjing.structure import Structure, Trace, call_with, no_leftovers, output_tensors
from penjing.surgery._apply import named_states
from penjing.surgery._float64 import PromotedCasts, doubled, float64
from penjing.surgery._masks import kept_part, masks_of
from penjing.surgery._replay import Masks, replay
from penjing.surgery._states import float64_copy, visible_states

TOLERANCE = 1e-9
FAINT = 1e-7  # outputs much smaller than 1 must agree to this share of their own size


def exactness(
    base: nn.Module,
    slim: nn.Module,
    structure: Structure,
    plan: Plan,
    gone: np.ndarray,
    example_inputs: Any,
    retraced: Sequence[Trace],
) -> float:
    """Largest error of the smaller network over all example inputs; infinite where nothing can be said."""
    generator = torch.Generator().manual_seed(0)
    states, hidden = visible_states(base)
    small = float64_copy(slim, states, hidden, plan)
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    worst = 0.0
    for position, example in enumerate(examples):
        inputs = tree_map_only(torch.Tensor, lambda t: _random_like(t, generator), example)
        with float64(), no_leftovers(slim):
            with PromotedCasts():
                ours = output_tensors(call_with(small, _copied(inputs)))
            if retraced[position].chosen:
                ours = _replayed(retraced[position], small, inputs)
            elif any(not t.is_floating_point() for t in ours):
                ours += _replayed(retraced[position], small, inputs)[len(ours) :]
            theirs = _masked(structure, position, states, inputs, gone)
        worst = max(worst, _largest_error(ours, theirs))
    return worst


def _float_feeds(graph: Graph) -> list[int]:
    """Float values that integer and boolean values are computed from: argmax and thresholds hide differences."""
    found: dict[int, None] = {}
    for call in graph.calls:
        if any("float" not in graph.values[v].dtype for v in call.outputs):
            found.update(dict.fromkeys(v for v in call.inputs if "float" in graph.values[v].dtype))
    return list(found)


def _replayed(traced: Trace, small: nn.Module, inputs: Any) -> list[torch.Tensor]:
    """The smaller network's own outputs, then its float values before anything discrete, from its own graph."""
    states = {n: t.detach() for n, t in named_states(small, traced.graph.states)}
    wanted = [*traced.graph.outputs, *_float_feeds(traced.graph)]
    return replay(traced.graph, _tensors(traced, states, inputs), Masks(), wanted)


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
    structure: Structure, position: int, states: Mapping[str, torch.Tensor], inputs: Any, gone: np.ndarray
) -> list[torch.Tensor]:
    """The masked network's outputs; where some are discrete, the kept indices of what feeds discrete values too."""
    traced = structure.traces[position]
    graph = traced.graph
    tensors = _tensors(traced, states, inputs)
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    discrete = bool(traced.chosen) or any("float" not in graph.values[v].dtype for v in graph.outputs)
    feeds = _float_feeds(graph) if discrete else []
    found = replay(graph, tensors, masks_of(structure, position, gone, device), [*graph.outputs, *feeds])
    count = len(graph.outputs)
    kept = [
        kept_part(t, structure.dims(v, position), gone) for t, v in zip(found[count:], feeds, strict=True)
    ]
    return found[:count] + kept


def _tensors(traced: Trace, states: Mapping[str, torch.Tensor], inputs: Any) -> dict[int, torch.Tensor]:
    graph = traced.graph
    tensors = {graph.states[name]: tensor for name, tensor in states.items()}
    device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
    leaves = [t for t in tree_leaves(_copied(inputs)) if isinstance(t, torch.Tensor)]
    tensors.update(zip(graph.inputs, leaves, strict=True))
    for value, tensor in traced.constants.items():
        tensors[value] = doubled(tensor).to(device, copy=True)
    tensors.update((value, chosen.to(device)) for value, chosen in traced.chosen.items())
    return tensors


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
