"""Tensors without some of their indices."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from penjing.core import PlanError
from penjing.structure import cloned, fresh, marked_like

_BLOCK = 1 << 16  # elements: what is cut twice is cut a block at a time, in the processor's cache
_KEPT = 256  # tuples that are remembered, by identity: long ones take long to compare
_LEFT: dict[tuple[int, int], tuple[tuple[int, ...], torch.Tensor]] = {}


def slice_tensor(tensor: torch.Tensor, dims: Mapping[int, tuple[int, ...]], name: str) -> torch.Tensor:
    """The tensor without the given indices; a parameter stays a parameter, channels-last stays channels-last."""
    _check(tensor, dims, name)
    rows = {dim: _left(indices, tensor.shape[dim]).to(tensor.device) for dim, indices in dims.items()}
    kept = _taken(tensor.detach(), sorted(rows.items())) if rows else cloned(tensor)
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is not None and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=last):
        kept = kept.contiguous(memory_format=last)
    return as_parameter(kept, tensor) if isinstance(tensor, nn.Parameter) else kept


def as_parameter(data: torch.Tensor, original: nn.Parameter) -> torch.Tensor:
    """A parameter that learns if the original does, with what its owner wrote on it."""
    return marked_like(nn.Parameter(data, original.requires_grad), original)


def _check(tensor: torch.Tensor, dims: Mapping[int, tuple[int, ...]], name: str) -> None:
    for dim, indices in dims.items():
        if not indices:
            raise PlanError(f"the plan names dim {dim} of {name!r} and removes nothing from it")
        if dim >= tensor.dim() or indices[-1] >= tensor.shape[dim] or len(indices) >= tensor.shape[dim]:
            raise PlanError(
                f"the plan removes {len(indices)} indices up to {indices[-1]} from dim {dim} of {name!r}, whose "
                f"shape is {tuple(tensor.shape)}: at least one must stay"
            )


def _left(removed: tuple[int, ...], size: int) -> torch.Tensor:
    """The indices that stay; kept, since the tensors of a group lose the same ones."""
    held = _LEFT.get((id(removed), size))
    if held is None:
        mark = np.ones(size, dtype=bool)
        mark[np.array(removed)] = False
        if len(_LEFT) >= _KEPT:
            _LEFT.clear()
        held = _LEFT[id(removed), size] = removed, torch.from_numpy(np.flatnonzero(mark))
    return held[1]


def _taken(tensor: torch.Tensor, rows: Sequence[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """The given rows of each dim. Fresh memory costs more than reading: it is taken once, for the result."""
    if tensor.is_meta or tensor.numel() <= _BLOCK:
        for dim, kept in rows:
            tensor = tensor.index_select(dim, kept)
        return tensor
    shape = list(tensor.shape)
    for dim, left in rows:
        shape[dim] = len(left)
    found = fresh(shape, tensor.dtype, tensor.device)
    last, kept = rows[-1]
    if len(rows) == 1:
        return torch.index_select(tensor, last, kept, out=found)
    (first, outer), *inner = rows[:-1]
    step = max(1, _BLOCK * tensor.shape[first] // tensor.numel())
    for start in range(0, len(outer), step):
        part = tensor.index_select(first, outer[start : start + step])
        for dim, left in inner:
            part = part.index_select(dim, left)
        torch.index_select(part, last, kept, out=found.narrow(first, start, part.shape[first]))
    return found
