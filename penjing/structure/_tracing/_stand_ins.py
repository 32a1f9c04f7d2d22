"""A network's tensors as stand-ins without data, for the length of a trace."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from penjing.structure._network._walk import Named

_REGISTERED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")
_OTHERS = frozenset({bool, int, float, str, type(None), dict, OrderedDict, set})
_NUMBERS = frozenset({int, float, str, bool})
_META = torch.device("meta")


@contextmanager
def on_meta(
    named: Named, training: bool
) -> Iterator[tuple[dict[str, torch.Tensor], dict[int, torch.Tensor]]]:
    """Swap parameters, buffers and plain tensor attributes for stand-ins; yields name (every alias) -> stand-in,
    and `id` of a stand-in with data -> original.

    `named` are the network's modules under every path. Floats lie on meta, integers stay real.
    """
    swap = _Swap()
    try:
        try:
            yield swap.all_of(named, training), swap.originals
        finally:
            swap.back()
    except BaseException:
        swap.back()  # once more: an interrupt may have come on the way back
        raise


class _Swap:
    """What was swapped, written down before it is, so that whatever comes between can be taken back."""

    def __init__(self) -> None:
        self.originals: dict[int, torch.Tensor] = {}
        self._undo: list[tuple[dict[str, Any], str, Any]] = []
        self._registered: list[tuple[Any, Any]] = []

    def all_of(self, named: Named, training: bool) -> dict[str, torch.Tensor]:
        """Swaps; gives the stand-ins by name."""
        twins: dict[int, torch.Tensor] = {}
        states: dict[str, torch.Tensor] = {}
        plain: list[tuple[str, dict[str, Any], str, torch.Tensor]] = []
        flipped: list[dict[str, Any]] = []
        undo, seen = self._undo, set[int]()
        for path, module in named:
            held, prefix = module.__dict__, f"{path}." if path else ""
            first = id(module) not in seen
            if first:
                seen.add(id(module))
                parts = [held[kind] for kind in _REGISTERED]
                self._registered.extend([(part, part.copy() if part else None) for part in parts])
                if held["training"] is not training:
                    flipped.append(held)
            for part in (held["_parameters"], held["_buffers"]):
                if part:
                    _swap(part, prefix, twins, states, self.originals)
            if first:
                plain.extend(
                    [(prefix + name, held, name, value) for name, value in _attributes(held, twins, undo)]
                )
        for name, held, attribute, tensor in plain:
            undo.append((held, attribute, tensor))
            held[attribute] = twins.get(id(tensor)) if id(tensor) in twins else stand_in(tensor)
            twins[id(tensor)] = states[name] = held[attribute]
        for held in flipped:
            undo.append((held, "training", not training))
            held["training"] = training
        return states

    def back(self) -> None:
        for part, content in self._registered:  # buffers and modules that the forward registers go again
            if part or content:
                part.clear()
                part.update(content or ())
        for held, name, value in reversed(self._undo):
            held[name] = value


def _swap(
    part: dict[str, Any],
    prefix: str,
    twins: dict[int, torch.Tensor],
    states: dict[str, torch.Tensor],
    originals: dict[int, torch.Tensor],
) -> None:
    for name, tensor in part.items():
        if tensor is not None:
            twin = twins.get(id(tensor))
            if twin is None:
                twin = stand_in(tensor)
                twins[id(tensor)] = twins[id(twin)] = twin
                if not twin.is_meta:
                    originals[id(twin)] = tensor
            part[name] = states[prefix + name] = twin


def stand_in(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of the same kind without data, dense in the place of a sparse one; an integer tensor's copy."""
    dtype = tensor.dtype
    if not (dtype.is_floating_point or dtype.is_complex):
        data = tensor.detach()
        return data.to("cpu", copy=True) if not tensor.is_meta else data
    if tensor.layout is not torch.strided:
        meta = torch.empty(tensor.shape, dtype=dtype, device=_META)
    elif tensor.is_contiguous():
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=dtype, device=_META)
    else:
        meta = torch.empty_like(tensor.detach(), device=_META)
    kind = type(tensor)
    learned = kind is nn.Parameter or (kind is not torch.Tensor and isinstance(tensor, nn.Parameter))
    return torch.Tensor._make_subclass(nn.Parameter, meta, tensor.requires_grad) if learned else meta


def _attributes(
    held: dict[str, Any], twins: Mapping[int, torch.Tensor], undo: list[tuple[dict[str, Any], str, Any]]
) -> list[tuple[str, torch.Tensor]]:
    """Plain tensors of floats. Lists of swapped tensors, such as an RNN's `_flat_weights`, are swapped in passing."""
    found: list[tuple[str, torch.Tensor]] = []
    if _OTHERS.issuperset(map(type, held.values())):
        return found
    for name, value in held.items():
        kind = type(value)
        if kind in _OTHERS:
            continue
        if kind is torch.Tensor:
            if value.is_floating_point() or value.is_complex():
                found.append((name, value))
        elif (
            (kind is tuple or kind is list)
            and not _NUMBERS.issuperset(map(type, value))
            and any(id(v) in twins for v in value)
        ):
            undo.append((held, name, value))
            held[name] = kind(twins.get(id(v), v) for v in value)
    return found
