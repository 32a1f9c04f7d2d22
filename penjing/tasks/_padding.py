"""Which positions of padded inputs hold something."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def padding_mask(inputs: Any) -> Tensor | None:
    """Bool [batch, n], false where a row is padding, found among the inputs; None where nothing says so."""
    mask = next((part for ends in (_ends_padded, _starts_padded) for part in _masks(inputs, ends)), None)
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
