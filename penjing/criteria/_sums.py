"""Sums of elementwise scores over everything that goes with a unit."""

from collections.abc import Mapping

import numpy as np
import torch

from penjing.core._groups import PruneGroup

_SMALL = 1 << 13
_BLOCK = 1 << 17  # elements in float64 at a time: they stay in the processor's cache


class Sums:
    """Sums of |score| ** power (1 or 2) along the dims of named tensors, in float64.

    One pass over each tensor, when it is first asked for, serves every dim and every group that has part in it.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], power: int) -> None:
        self._tensors, self._power = tensors, power
        self._known: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._along: dict[tuple[int, int], np.ndarray] = {}
        self._buffers: dict[torch.device, torch.Tensor] = {}

    def along(self, name: str, dim: int) -> np.ndarray | None:
        """Per index of a dim the sum over all others, shape (indices,); None for a tensor that has no scores."""
        values = self._tensors.get(name)
        if values is None:
            return None
        found = self._along.get((id(values), dim))
        if found is None:
            found = self._along[id(values), dim] = self._summed(values, dim)
        return found

    def _summed(self, values: torch.Tensor, dim: int) -> np.ndarray:
        shape = values.shape
        first = next((d for d, n in enumerate(shape) if n != 1), 0)
        if id(values) not in self._known:
            self._known[id(values)] = self._pass(values.detach().reshape(shape[first:]))
        rows, rest = self._known[id(values)]
        if dim == first:
            return rows
        if dim < first:
            return rows.sum(keepdims=True)
        return rest.sum(tuple(d for d in range(len(shape) - first - 1) if d != dim - first - 1))

    def _pass(self, values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Sums per index of dim 0, and over dim 0."""
        if values.numel() <= _SMALL:
            whole = self._powers(torch.empty(values.shape, dtype=torch.float64), values.cpu()).numpy()
            return whole.reshape(len(whole), whole[:1].size).sum(1) if whole.ndim > 1 else whole, whole.sum(0)
        width = values.shape[1:].numel()
        step = max(1, _BLOCK // max(1, width))
        made = {"dtype": torch.float64, "device": values.device}
        rows, rest = torch.empty(len(values), **made), torch.zeros(width, **made)
        ones = torch.ones(min(step, len(values)), **made)
        buffer = self._buffer(min(step, len(values)) * width, values.device)
        for start in range(0, len(values), step):
            part = values[start : start + step]
            block = buffer[: part.numel()]
            self._powers(block.view(part.shape), part)
            block = block.view(len(part), width)
            torch.sum(block, 1, out=rows[start : start + step])
            rest.addmv_(block.T, ones[: len(part)])
        return rows.cpu().numpy(), rest.view(values.shape[1:]).cpu().numpy()

    def _powers(self, into: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        into.copy_(values.abs() if values.is_complex() else values)
        return into.abs_() if self._power == 1 else into.mul_(into)

    def _buffer(self, size: int, device: torch.device) -> torch.Tensor:
        held = self._buffers.get(device)
        if held is None or len(held) < size:
            held = self._buffers[device] = torch.empty(max(size, _BLOCK), dtype=torch.float64, device=device)
        return held


def spread(group: PruneGroup, sums: Sums) -> np.ndarray:
    """Sum elementwise scores over each unit's slices; float64 of shape (units,)."""
    together: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}  # slots share most index arrays
    for slot in group.slots:
        values = sums.along(slot.name, slot.dim)
        if values is not None:
            key = id(slot.index), len(values)
            together[key] = (slot.index, together[key][1] + values if key in together else values)
    total = np.zeros(len(group))
    for index, values in together.values():
        total += values[index].sum(1) if index.shape[1] > 1 else values[index[:, 0]]
    return total
