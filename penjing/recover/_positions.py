"""Which positions of a layer hold something, and which are padding."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from penjing.recover._protocols import Batch, SequenceTask, Task


def filled(task: Task, batch: Batch, inputs: Any, logits: Tensor) -> Tensor | None:
    """Bool [batch, n], false where a row is padding; None where nothing says so.

    It is the mask among the inputs, or else the positions that the task counts. n may be the number of tokens,
    of samples or of frames: `at_length` brings it to a layer's.
    """
    mask = next(_masks(inputs), None)
    if mask is None and isinstance(task, SequenceTask):
        mask = task.positions(logits, batch)
    return None if mask is None else mask.bool()


def _masks(inputs: Any) -> Iterator[Tensor]:
    """Tensors [batch, n] of ones and then zeros in every row, as masks of what is padded at the end are."""
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else ()
    for part in parts:
        if isinstance(part, Tensor) and part.ndim == 2 and _is_mask(part):
            yield part


def _is_mask(part: Tensor) -> bool:
    ones = part == 1
    binary = bool((ones | (part == 0)).all())
    return binary and bool(ones[:, 0].all()) and not bool((~ones[:, :-1] & ones[:, 1:]).any())


def at_length(mask: Tensor | None, examples: int, length: int, device: torch.device) -> Tensor:
    """The mask for `length` positions: itself, or for another rate the same share of each row, rounded up."""
    if mask is None:
        return torch.ones(examples, length, dtype=torch.bool, device=device)
    if mask.shape[1] == length:
        return mask
    share = mask.sum(1).double() / mask.shape[1]
    frames = torch.ceil(share * length - 1e-6)
    return torch.arange(length, device=mask.device) < frames[:, None]
