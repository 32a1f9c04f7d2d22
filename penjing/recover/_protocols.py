"""What the training functions need from data and from their callers."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from penjing.tasks import SequenceTask as SequenceTask
from penjing.tasks import Task as Task

Batch = Any
Figures = Mapping[str, float]
Progress = Callable[[str, int, int, Figures], None]


class Data(Protocol):
    """Batches of the splits "train" and "selection"; `penjing.tasks.ImageData` is one.

    Order and augmentation of a batch are functions of (seed, epoch) alone; `n` is the number of examples.
    Data of differing lengths may also offer `bucketed(split, batch_size) -> (order, batches)`: the split by
    length, example i of it being number order[i] of the split. `evaluate` takes it where it is.
    """

    def n(self, split: str) -> int: ...

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        augment: Any = ...,
        seed: int = ...,
        epoch: int = ...,
        shuffle: bool = ...,
        limit: int | None = ...,
    ) -> Iterable[Batch]: ...
