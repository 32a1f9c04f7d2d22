"""What the training functions need from data and from their callers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from penjing.tasks import Task as Task

Batch = Any
Figures = Mapping[str, float]
Progress = Callable[[str, int, int, Figures], None]


@runtime_checkable
class SequenceTask(Task, Protocol):
    """A task whose logits are [batch, positions, classes], and whose answers are sequences."""

    def positions(self, logits: Tensor, batch: Any) -> Tensor:
        """Which positions count, bool of shape logits.shape[:-1]: padding does not."""
        ...

    def answers(self, logits: Tensor, batch: Any) -> Sequence[Any]:
        """One answer per example."""
        ...

    def truths(self, batch: Any) -> Sequence[Any]:
        """What the answers are compared with, one per example."""
        ...


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
