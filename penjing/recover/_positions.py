"""Which positions of a layer hold something, and which are padding."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from penjing.recover._protocols import Batch, SequenceTask, Task


def filled(task: Task, batch: Batch, inputs: Any, logits: Tensor) -> Tensor | None:
    """Bool [batch, n], false where a row is padding; None where nothing says so.

    It is the mask among the inputs, or else the positions that the task counts. n may be the number of tokens,
    of samples or of frames: `at_length` brings it to a layer's.
    """
    mask = next((part for ends in (_ends_padded, _starts_padded) for part in _masks(inputs, ends)), None)
    if mask is None and isinstance(task, SequenceTask):
        mask = task.positions(logits, batch)
    return None if mask is None else mask.bool()


def _masks(inputs: Any, padded: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Tensors [batch, n] of ones and zeros alone, padded as asked."""
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else ()
    for part in parts:
        if isinstance(part, Tensor) and part.ndim == 2:
            ones = part == 1
            if bool((ones | (part == 0)).all()) and bool(padded(ones)):
                yield part


def _ends_padded(ones: Tensor) -> Tensor:
    """Every row is ones, then zeros."""
    return ones[:, 0].all() & ~(~ones[:, :-1] & ones[:, 1:]).any()


def _starts_padded(ones: Tensor) -> Tensor:
    """Every row is zeros, then ones, as numbers of segments may be too: a mask that ends padded goes first."""
    return ones[:, -1].all() & ~(ones[:, :-1] & ~ones[:, 1:]).any()


def at_length(mask: Tensor | None, examples: int, length: int, device: torch.device) -> Tensor:
    """The mask for `length` positions, each asked at the first of the mask's places that it covers.

    Of a row that is real up to a share of it, that share of the positions, rounded up.
    """
    if mask is None:
        return torch.ones(examples, length, dtype=torch.bool, device=device)
    return mask[:, torch.arange(length, device=mask.device) * mask.shape[1] // length]
