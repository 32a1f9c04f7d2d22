"""Which positions of a product's data hold something, and which are padding."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.recover._modules import call
from penjing.recover._positions import at_length, filled
from penjing.recover._protocols import Batch, SequenceTask, Task
from penjing.structure import Product, tensors_of


@dataclass(frozen=True, slots=True)
class Padding:
    """The mask [examples, n] of one batch, false where a row is padding; None where nothing says so."""

    mask: Tensor | None
    examples: int

    def positions(self, item: Product) -> Tensor | None:
        """The positions of a product that count; None for all.

        Positions are taken to run example by example, as rows of a batch do; where they cannot be told apart (maps
        with two axes, another number of rows) all count.
        """
        length, rest = divmod(item.positions, self.examples)
        if self.mask is None or rest or item.maps or not 1 < length <= self.mask.shape[1]:
            return None
        stays = at_length(self.mask, self.examples, length, item.data.device)
        return None if bool(stays.all()) else stays.flatten().nonzero().flatten()


def padding_of(task: Task | None, batch: Batch, inputs: Any, model: nn.Module) -> Padding:
    examples = int(tensors_of(inputs)[0].shape[0])
    if task is None:
        return Padding(None, examples)
    logits = task.logits(call(model, inputs)) if isinstance(task, SequenceTask) else torch.empty(0)
    return Padding(filled(task, batch, inputs, logits), examples)
