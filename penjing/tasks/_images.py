"""Pictures as batches of normalised tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penjing.core import Pictures
from penjing.tasks._augment import Policy, policy_named, uniform
from penjing.tasks._augment import augment as views
from penjing.tasks._buckets import in_batches
from penjing.tasks._pixels import Pixels

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """The Contents of pictures for classification; `augmentation` is the policy that `augment=True` means."""

    reads: Pictures
    augmentation: str
    classes: Tensor
    pixels: Pixels
    called: str = "pictures"

    @property
    def size(self) -> tuple[int, int, int]:
        return self.reads.size

    def policy(self, augment: bool | str) -> Policy | None:
        return policy_named(self.augmentation if augment is True else augment or "none")

    def shuffled(
        self, indices: Sequence[int], batch_size: int, seed: int, epoch: int
    ) -> Iterator[Sequence[int]]:
        order = uniform(seed ^ 0x5DEECE66D, epoch, indices, 1)[:, 0].argsort(kind="stable")
        return in_batches([indices[i] for i in order.tolist()], batch_size)

    def by_length(self, indices: Sequence[int]) -> np.ndarray:
        return np.arange(len(indices))

    def targets(self, indices: Sequence[int]) -> Tensor:
        """Class numbers [n]."""
        return self.classes[torch.tensor(indices, dtype=torch.int64)]

    def example(self, batch_size: int) -> Tensor:
        """Noise in the shape of these pictures, [batch_size, C, H, W] of float32."""
        return torch.randn(batch_size, *self.size, generator=torch.Generator().manual_seed(0))

    def batch(self, indices: Sequence[int], policy: Policy | None, seed: int, epoch: int) -> Batch:
        """(images [b, C, H, W] normalised float32, targets [b] int64)."""
        images = self.pixels.take(indices).float().div_(255.0)
        if policy is not None:
            images = views(images, policy, seed=seed, epoch=epoch, indices=indices)
        images = images.expand(-1, self.size[0], -1, -1)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.reads.mean, self.reads.std))
        return (images - mean).div_(std), self.targets(indices)
