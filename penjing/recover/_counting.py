"""What of a batch counts: its examples, the positions that are not padding, the terms of a mean loss."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from penjing.core import DataError
from penjing.recover._protocols import Batch, Data, SequenceTask, Task

IGNORED = -100


def examples(targets: Any) -> int:
    """The number of examples that targets speak of; those of a named tuple, tuple or dict are its first part's."""
    if isinstance(targets, Mapping):
        return examples(next(iter(targets.values())))
    if isinstance(targets, tuple):
        return examples(targets[0])
    return len(targets)


def terms(task: Task, batch: Batch) -> int:
    """How many terms the task's mean loss is taken over, which is what the loss of a batch weighs in a split's.

    Examples; for a sequence task with one class number per position the positions with one (-100 has none).
    """
    targets = task.targets(batch)
    if isinstance(task, SequenceTask) and isinstance(targets, Tensor) and targets.ndim == 2:
        return int((targets != IGNORED).sum())
    return examples(targets)


def classes_last(logits: Tensor, targets: Any) -> Tensor:
    """Logits (..., classes); those of maps may come as [batch, classes, ...], as torch's losses take them, which
    targets [batch, ...] tell.
    """
    if not isinstance(targets, Tensor) or logits.ndim < 3 or targets.shape == logits.shape[:-1]:
        return logits
    return logits.movedim(1, -1) if targets.shape == logits[:, 0].shape else logits


def sample(data: Data, split: str = "selection") -> Batch:
    """Two examples. Raises `DataError` where the split has none."""
    batch = next(iter(data.batches(split, 2)), None)
    if batch is None:
        raise DataError(f"The split {split!r} is empty: nothing to try the networks on. Give it examples.")
    return batch


def counted(task: Task, batch: Batch, logits: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tensors [batch, positions, ...] as [n, ...]: the positions that count, those of `logits` first.

    Outputs of a task without positions come back as they are.
    """
    if not isinstance(task, SequenceTask):
        return logits, *others
    keep = task.positions(logits, batch)
    return logits[keep], *(other[keep] for other in others)
