"""Exactness: the smaller network's own forward against the masked original, on random numbers in float64."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core._graph import Graph
from penjing.core._plan import Plan
from penjing.structure import (
    Structure,
    Trace,
    call_with,
    every_path,
    is_additive_mask,
    keep_freed,
    map_tensors,
    no_leftovers,
    output_tensors,
    tensors_of,
    trace_forward,
)
from penjing.surgery._apply import named_states
from penjing.surgery._constants import aligned
from penjing.surgery._differences import largest_error, products_differ
from penjing.surgery._extents import (
    grouped_dims,
    is_heavy,
    is_worth_thinning,
    labelled_dims,
    smaller_examples,
    traced_on,
)
from penjing.surgery._masks import kept_part, masks_of
from penjing.surgery._places import on_fewer_places
from penjing.surgery._precision import (
    DOUBLE,
    SINGLE,
    Precision,
    PromotedCasts,
    Ran,
    limits_of_single,
    plain_attention,
)
from penjing.surgery._replay import Masks, replay
from penjing.surgery._rescale import scalings
from penjing.surgery._revival import (
    CONTRACTIONS,
    Deaf,
    Follower,
    Following,
    Hearing,
    Reviving,
    Told,
    hides,
    measure,
)
from penjing.surgery._states import precise_copy, visible_states
from penjing.surgery._thinning import thinned_alike, twins

_NO_DOUBLES = re.compile(r"double|float64", re.IGNORECASE)
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Exactness:
    """The largest error over all example inputs (infinite where nothing can be said), in which precision it was
    measured, the shapes of the tensors that it was measured on, example by example, and whether places were left out
    inside the networks for some of them.
    """

    error: float
    precision: Precision
    shapes: tuple[Shapes, ...]
    thinned: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """What is compared: the original, the smaller network, and what is known of both."""

    base: nn.Module
    slim: nn.Module
    structure: Structure
    plan: Plan
    gone: np.ndarray
    retraced: Sequence[Trace]


def exactness(subject: Subject, example_inputs: Any) -> Exactness:
    """Compare on every example input, in float64; where a kernel knows no float64, in float32."""
    keep_freed()
    examples = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    try:
        return _exactness(subject, DOUBLE, examples)
    except (RuntimeError, TypeError) as error:
        if not _NO_DOUBLES.search(str(error)):
            raise
    return _exactness(subject, SINGLE, examples)


def _exactness(subject: Subject, precision: Precision, examples: Sequence[Any]) -> Exactness:
    """Where outputs are infinite, once more without the infinities among the weights."""
    found = _Run(subject, precision).over(examples)
    if found.error < float("inf"):
        return found
    return _Run(subject, precision, thorough=True).over(examples)


class _Run:
    """Both sides, ready to run in one precision."""

    def __init__(self, subject: Subject, precision: Precision, *, thorough: bool = False) -> None:
        self._of, self._precision = subject, precision
        read = {
            name for trace in (*subject.structure.traces, *subject.retraced) for name in _read(trace.graph)
        }
        self._states, hidden = visible_states(subject.base, precision, read, thorough=thorough)
        self._small = precise_copy(subject.slim, self._states, hidden, subject.plan, precision)
        self._generator = torch.Generator().manual_seed(0)
        self._silent, self._told = False, Told()

    def over(self, examples: Sequence[Any]) -> Exactness:
        errors, shapes, thinned = zip(*(self._one(*each) for each in enumerate(examples)), strict=True)
        return Exactness(max(errors), self._precision, shapes, any(thinned))

    def _one(self, position: int, example: Any) -> tuple[float, Shapes, bool]:
        """On fewer places first, where that pays: what fails there, for any reason, runs in full."""
        full = self._of.structure.traces[position]
        whole = bool(full.chosen) or full.graph.ending is not None
        for smaller in () if whole else smaller_examples(full.graph, example):
            try:
                error = self._on_fewer(position, smaller)
            except Exception:
                break  # code may insist on its input's extent in any way, and does so at every other one
            if error <= self._precision.tolerance:
                return error, _shapes(smaller), False
        if not whole and is_worth_thinning(full.graph):
            with suppress(Exception):
                error = self._thinned(position, example)
                if error <= self._precision.tolerance:
                    return error, _shapes(example), True
        with self._running():
            inputs = self._inputs(example)
            ours = self._own(inputs, PromotedCasts(self._precision))
            return self._error(position, example, full, inputs, ours), _shapes(example), False

    def _on_fewer(self, position: int, example: Any) -> float:
        """The error there; infinite where the two networks may do something else there than in full."""
        found = float("inf")
        with self._running():
            inputs, mode = self._inputs(example), PromotedCasts(self._precision, recorded=True)
            with plain_attention():
                ours = self._own(inputs, mode)
        for base in self._bases(position, example, mode.ran):
            try:
                with self._running():
                    found = self._error(position, example, base, inputs, ours)
            except Exception:
                continue
            if found <= self._precision.tolerance:
                break
        return found

    def _thinned(self, position: int, example: Any) -> float:
        """The error on fewer places of both graphs, of everything from which places are cut, before they are, and of
        what products give there (a mask may hide it from the outputs); infinite where these would not tell all.
        """
        full, retraced = self._of.structure.traces[position], self._of.retraced[position]
        pair = thinned_alike(self._of.structure, position, retraced.graph)
        if pair is None or hides(full.graph):
            return float("inf")
        whole: dict[int, torch.Tensor] = {}
        compared: dict[int, float] = {}
        twin, scaled = twins(*pair), bool(scalings(self._of.plan))
        told: dict[int, tuple[float, float]] = {}

        def tell(call: int, tensor: torch.Tensor) -> None:
            told[call] = measure(tensor)

        def hear(call: int, tensor: torch.Tensor) -> None:
            value = pair[0].graph.calls[call].outputs[0]
            dims = self._of.structure.dims(value, position)
            left = tuple(() if d in pair[0].marks[value] else dim for d, dim in enumerate(dims))
            ours, theirs = told[call], measure(kept_part(tensor, left, self._of.gone))
            compared[-1 - call] = abs(ours[0] - theirs[0]) / max(1.0, ours[1], theirs[1])

        def compare(value: int, tensor: torch.Tensor) -> None:
            if value not in compared:
                kept = kept_part(tensor, self._of.structure.dims(value, position), self._of.gone)
                compared[value] = largest_error([whole[twin[value]]], [kept], self._precision)

        with self._running():
            inputs, deaf = self._inputs(example), Deaf()
            small = replace(retraced, graph=pair[1].graph)
            tensors = self._tensors(small, self._small_states(small), inputs)
            follower = replace(pair[1], meets=whole.setdefault, gives=None if scaled else tell, deaf=deaf)
            ours = replay(small.graph, tensors, Masks(), small.graph.outputs, self._precision, follower)
            if deaf or any(not t.is_floating_point() for t in ours):
                return float("inf")
            follower = replace(pair[0], meets=compare, gives=None if scaled else hear)
            theirs = self._masked(position, replace(full, graph=pair[0].graph), inputs, follower)
            return max(largest_error(ours, theirs, self._precision), *compared.values())

    def _bases(self, position: int, example: Any, ran: Sequence[Ran]) -> Iterator[Trace]:
        """The original's trace on fewer places: read off what the smaller network ran, or made anew."""
        of = self._of
        full, retraced = of.structure.traces[position], of.retraced[position]
        for fixed in (labelled_dims, grouped_dims):
            derived = on_fewer_places(full, retraced, ran, fixed(of.structure, position))
            if derived is not None:
                yield derived
                break
        if is_heavy(full.graph):
            traced = traced_on(of.base, of.slim, of.structure, position, retraced, example)
            if traced is not None:
                yield traced

    @contextmanager
    def _running(self) -> Iterator[None]:
        with self._precision.run(), no_leftovers(module for _, module in every_path(self._of.slim)):
            yield

    def _inputs(self, example: Any) -> Any:
        return map_tensors(self._random_like, example)

    def _own(self, inputs: Any, mode: PromotedCasts) -> list[torch.Tensor]:
        """What the smaller network's own forward gives."""
        fresh = _copied(inputs)
        with mode, limits_of_single(self._precision):
            found = output_tensors(call_with(self._small, fresh))
        self._silent, self._told = bool(mode.deaf), mode.told
        return found

    def _error(
        self, position: int, example: Any, base: Trace, inputs: Any, ours: list[torch.Tensor]
    ) -> float:
        partly = bool(base.chosen) or base.graph.ending is not None
        if partly:
            ours = self._replayed(position, example, base, inputs)
        elif any(not t.is_floating_point() for t in ours):
            ours = ours + self._replayed(position, example, base, inputs)[len(ours) :]
        heard = None if partly or scalings(self._of.plan) else self._hearing(position, base)
        theirs = self._masked(position, base, inputs, heard)
        error = largest_error(ours, theirs, self._precision)
        if error > self._precision.tolerance:
            return error
        if heard is not None and not self._silent and not hides(base.graph):
            differing = products_differ(self._told, heard.told, self._precision)
            if differing is not None and differing <= self._precision.tolerance:
                return max(error, differing)
        elif not self._silent and not hides(base.graph):
            return error
        return max(error, self._revived(position, example, base, inputs))

    def _hearing(self, position: int, base: Trace) -> Hearing:
        of, calls = self._of, base.graph.calls
        products = sum(call.op.overloadpacket in CONTRACTIONS for call in calls)
        dims = of.structure.dims
        return Hearing(
            lambda v, t: kept_part(t, dims(v, position), of.gone), len(self._told.products) < products
        )

    def _revived(self, position: int, example: Any, base: Trace, inputs: Any) -> float:
        """The largest difference between any two values, where what is all zero is replaced by random numbers.

        (Not where the plan scales weights: values on the way then differ by these factors.)
        """
        of = self._of
        if scalings(of.plan):
            return 0.0
        small = self._retraced(position, example, base)
        dims, numbered = of.structure.dims, of.structure.facts[position].places
        original = Reviving(
            dict(aligned(base, small)), lambda v, t: kept_part(t, dims(v, position), of.gone), numbered
        )
        following = Following(original)
        masks = masks_of(of.structure, position, of.gone, next(iter(self._states.values())).device)
        for trace, states, hidden, follower in (
            (base, self._states, masks, original),
            (small, self._small_states(small), Masks(), following),
        ):
            tensors = self._tensors(trace, states, inputs)
            torch.manual_seed(0)  # both draw alike; the caller's generator is put back by `_running`
            replay(trace.graph, tensors, hidden, trace.graph.outputs, self._precision, follower)
        return following.error

    def _random_like(self, tensor: torch.Tensor) -> torch.Tensor:
        """Random values; an example without negative values stays without them (logarithms, roots), and what says
        what to leave out says so still.
        """
        if tensor.is_complex() or is_additive_mask(tensor):
            return self._precision.cast(tensor.detach())
        if not tensor.is_floating_point():
            return tensor.clone()
        device = "cpu" if tensor.is_meta else tensor.device
        noise = torch.randn(tensor.shape, generator=self._generator, dtype=torch.float64)
        noise = noise.to(device, self._precision.dtype)
        positive = not tensor.is_meta and tensor.numel() and tensor.min() >= 0
        return noise.abs() * max(1e-3, tensor.double().abs().max().item()) if positive else noise

    def _replayed(self, position: int, example: Any, base: Trace, inputs: Any) -> list[torch.Tensor]:
        """The smaller network's own outputs, then its float values before anything discrete, from its own graph."""
        traced = self._retraced(position, example, base)
        tensors = self._tensors(traced, self._small_states(traced), inputs)
        wanted = [*traced.graph.outputs, *_float_feeds(traced.graph)]
        return replay(traced.graph, tensors, Masks(), wanted, self._precision)

    def _retraced(self, position: int, example: Any, base: Trace) -> Trace:
        """The smaller network's trace on the example that `base` is the original's on."""
        in_full = base is self._of.structure.traces[position]
        return self._of.retraced[position] if in_full else trace_forward(self._of.slim, example)

    def _small_states(self, traced: Trace) -> dict[str, torch.Tensor]:
        return {n: t.detach() for n, t in named_states(self._small, traced.graph.states)}

    def _masked(
        self, position: int, traced: Trace, inputs: Any, follower: Follower | None = None
    ) -> list[torch.Tensor]:
        """The masked network's outputs; where some are discrete, the kept indices of what feeds discrete values too."""
        of, graph = self._of, traced.graph
        tensors = self._tensors(traced, self._states, inputs)
        device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
        discrete = bool(traced.chosen) or any("float" not in graph.values[v].dtype for v in graph.outputs)
        feeds = _float_feeds(graph) if discrete else []
        masks = masks_of(of.structure, position, of.gone, device)
        found = replay(graph, tensors, masks, [*graph.outputs, *feeds], self._precision, follower)
        count = len(graph.outputs)
        labelled = [of.structure.dims(v, position) for v in feeds]
        kept = [kept_part(t, dims, of.gone) for t, dims in zip(found[count:], labelled, strict=True)]
        return found[:count] + kept

    def _tensors(
        self, traced: Trace, states: Mapping[str, torch.Tensor], inputs: Any
    ) -> dict[int, torch.Tensor]:
        graph = traced.graph
        tensors = {graph.states[name]: tensor for name, tensor in states.items() if name in graph.states}
        device = next(iter(tensors.values())).device if tensors else torch.device("cpu")
        leaves = tensors_of(_copied(inputs))
        tensors.update(zip(graph.inputs, leaves, strict=True))
        for value, tensor in traced.constants.items():
            tensors[value] = self._precision.cast(tensor).to(device, copy=True)
        tensors.update((value, chosen.to(device)) for value, chosen in traced.chosen.items())
        return tensors


def _read(graph: Graph) -> list[str]:
    """The states that something is computed from."""
    values = {*graph.outputs, *(value for call in graph.calls for value in call.inputs)}
    return [name for name, value in graph.states.items() if value in values]


def _float_feeds(graph: Graph) -> list[int]:
    """Float values that integer and boolean values are computed from: argmax and thresholds hide differences."""
    found: dict[int, None] = {}
    for call in graph.calls:
        if any("float" not in graph.values[v].dtype for v in call.outputs):
            found.update(dict.fromkeys(v for v in call.inputs if "float" in graph.values[v].dtype))
    return list(found)


def _copied(inputs: Any) -> Any:
    return map_tensors(torch.clone, inputs)


def _shapes(example: Any) -> Shapes:
    return tuple(tuple(t.shape) for t in tensors_of(example))
