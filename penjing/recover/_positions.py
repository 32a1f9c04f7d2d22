"""Which positions of a layer hold something, and which are padding."""

from typing import Any

from torch import Tensor

from penjing.recover._protocols import Batch, SequenceTask, Task
from penjing.tasks import at_length as at_length
from penjing.tasks import padding_mask


def filled(task: Task, batch: Batch, inputs: Any, logits: Tensor) -> Tensor | None:
    """Bool [batch, n], false where a row is padding; None where nothing says so.

    It is the mask among the inputs, or else the positions that the task counts. n may be the number of tokens,
    of samples or of frames: `at_length` brings it to a layer's.
    """
    mask = padding_mask(inputs)
    if mask is None and isinstance(task, SequenceTask):
        mask = task.positions(logits, batch)
    return None if mask is None else mask.bool()
