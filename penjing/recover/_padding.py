"""Which positions of a product's data hold something, and which are padding."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.recover._modules import call
from penjing.recover._positions import filled
from penjing.recover._protocols import Batch, SequenceTask, Task
from penjing.structure import Product, real_positions, tensors_of


@dataclass(frozen=True, slots=True)
class Padding:
    """The mask [examples, n] of one batch, false where a row is padding; None where nothing says so."""

    mask: Tensor | None
    examples: int

    def positions(self, item: Product) -> Tensor | None:
        """The positions of a product that count; None for all."""
        return real_positions(item, self.mask, self.examples)


def padding_of(task: Task | None, batch: Batch, inputs: Any, model: nn.Module) -> Padding:
    examples = int(tensors_of(inputs)[0].shape[0])
    if task is None:
        return Padding(None, examples)
    logits = task.logits(call(model, inputs)) if isinstance(task, SequenceTask) else torch.empty(0)
    return Padding(filled(task, batch, inputs, logits), examples)
