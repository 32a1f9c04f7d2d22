"""Many short rows of whole numbers, end to end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

UNCOUNTED = -100  # the target of a position that does not count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ragged:
    """Row i is values[offsets[i] : offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    def row(self, index: int) -> np.ndarray:
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def padded(self, indices: Sequence[int], fill: int, left: bool = False) -> Tensor:
        """Rows of `indices` as int64 [n, longest], filled up behind (before, where `left`) with `fill`."""
        rows = [self.row(i) for i in indices]
        width = max((len(row) for row in rows), default=0)
        table = np.full((len(rows), width), fill, dtype=np.int64)
        for target, row in zip(table, rows, strict=True):
            target[width - len(row) if left else 0 :][: len(row)] = row
        return torch.from_numpy(table)


def ragged(rows: Iterable[Sequence[int]], dtype: type = np.int32) -> Ragged:
    """`rows` copied end to end."""
    arrays = [np.asarray(row, dtype=dtype) for row in rows]
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([len(array) for array in arrays], out=offsets[1:])
    return Ragged(values=np.concatenate([np.empty(0, dtype), *arrays]), offsets=offsets)
