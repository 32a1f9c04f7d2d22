"""Sums of elementwise scores over everything that goes with a unit."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from penjing.core._groups import PruneGroup

_SMALL = 1 << 13
_BLOCK = 1 << 17  # elements in float64 at a time: they stay in the processor's cache
_RUN, _WIDTH = (
    32,
    1024,
)  # rows, and columns, of squares in float32 that are added up before float64 takes over
_FAINT = 1e-24  # a sum below may have lost squares that float32 cannot hold
_NUMPY = (torch.float16, torch.float32, torch.float64)


class Sums:
    """Sums of |score| ** power (1 or 2) along the dims of named tensors, in float64.

    What is summed for one dim of a tensor serves every group that has part in it. Squares of large float32 tensors on
    the CPU are summed in float32 over short runs, and over the runs in float64: a sum changes by less than 1e-6 of
    itself. Sums so small or large that float32 may have lost squares are taken in float64.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], power: int) -> None:
        self._tensors, self._power = tensors, power
        self._passes: dict[tuple[int, bool], np.ndarray] = {}
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
        rows = dim <= first
        found = self._passes.get((id(values), rows))
        if found is None:
            self._pass(values, shape[first:], rows)
            found = self._passes[id(values), rows]
        if dim == first:
            return found
        if dim < first:
            return found.sum(keepdims=True)
        rest = found.reshape(shape[first + 1 :])
        return rest.sum(tuple(d for d in range(rest.ndim) if d != dim - first - 1))

    def _pass(self, values: torch.Tensor, shape: torch.Size, rows: bool) -> None:
        """Sums per index of dim 0 (`rows`) or over it; both where the other comes cheaply."""
        plain, key = values.detach(), id(values)
        if plain.numel() <= _SMALL:
            whole = self._small(plain).reshape(shape)
            if whole.ndim > 1:
                self._passes[key, True] = whole.reshape(len(whole), shape[1:].numel()).sum(1)
                self._passes[key, False] = whole.sum(0).ravel()
            else:
                self._passes[key, True], self._passes[key, False] = whole, whole.sum(0, keepdims=True)
            return
        if self._power == 2 and plain.dtype is torch.float32 and plain.is_cpu and plain.is_contiguous():
            table = plain.numpy().reshape(shape[0], -1)
            self._passes[key, rows] = _row_squares(table) if rows else _column_squares(table)
            return
        self._passes[key, True], self._passes[key, False] = self._both(plain.reshape(shape))

    def _small(self, values: torch.Tensor) -> np.ndarray:
        if values.dtype in _NUMPY and values.is_cpu:
            held = values.numpy()
            return np.square(held, dtype=np.float64) if self._power == 2 else np.abs(held).astype(np.float64)
        return self._powers(torch.empty(values.shape, dtype=torch.float64), values.cpu()).numpy()

    def _both(self, values: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
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
        return rows.cpu().numpy(), rest.cpu().numpy()

    def _powers(self, into: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        into.copy_(values.abs() if values.is_complex() else values)
        return into.abs_() if self._power == 1 else into.mul_(into)

    def _buffer(self, size: int, device: torch.device) -> torch.Tensor:
        held = self._buffers.get(device)
        if held is None or len(held) < size:
            held = self._buffers[device] = torch.empty(max(size, _BLOCK), dtype=torch.float64, device=device)
        return held


def _row_squares(table: np.ndarray) -> np.ndarray:
    width = table.shape[1]
    run = math.gcd(width, _WIDTH)
    if run >= _RUN or width <= _WIDTH:  # runs that lie in a row are read far faster than columns of runs
        runs = table.reshape(-1, width if width <= _WIDTH else run)
        found = np.einsum("ij,ij->i", runs, runs).reshape(len(table), -1).sum(1, dtype=np.float64)
    else:
        parts = [table[:, start : start + _WIDTH] for start in range(0, width, _WIDTH)]
        found = np.add.reduce([np.einsum("ij,ij->i", p, p).astype(np.float64) for p in parts])
    for few in _doubtful(found):
        found[few] = np.square(table[few], dtype=np.float64).sum(1)
    return found


def _column_squares(table: np.ndarray) -> np.ndarray:
    whole = len(table) - len(table) % _RUN
    runs = table[:whole].reshape(-1, _RUN, table.shape[1])
    found = np.einsum("kij,kij->kj", runs, runs).sum(0, dtype=np.float64)
    found += np.einsum("ij,ij->j", table[whole:], table[whole:])
    for few in _doubtful(found):
        found[few] = np.square(table[:, few], dtype=np.float64).sum(0)
    return found


def _doubtful(sums: np.ndarray) -> Iterator[np.ndarray]:
    """Positions of sums of which float32 may have lost squares, a few at a time."""
    found = np.flatnonzero(~((sums >= _FAINT) & np.isfinite(sums)))
    return (found[start : start + _RUN] for start in range(0, len(found), _RUN))


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
