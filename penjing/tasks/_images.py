"""Labelled pictures in three splits, as batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from penjing.core import UsageError
from penjing.tasks._augment import Policy, policy_named, uniform
from penjing.tasks._augment import augment as views
from penjing.tasks._pixels import Pixels
from penjing.tasks._splits import NAMES, Split

SplitName = Literal["train", "selection", "certification"]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageData:
    """Pictures for classification, split and ready to be drawn.

    `train` also serves to calibrate; `selection` chooses epochs and candidates; `certification` is touched by
    nothing else. `names` calls every example by its file or row; `bad` lists the pictures left out, with the
    reason. `augmentation` is the policy that `augment=True` means. `duplicates` counts examples whose content
    others have too; `contradictions` counts the different contents that stand under two classes or more;
    `said` are the source's own remarks.
    """

    name: str
    source: str
    licence: str
    labels: tuple[str, ...]
    train: Split
    selection: Split
    certification: Split
    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str
    names: tuple[str, ...]
    bad: tuple[str, ...]
    duplicates: int
    contradictions: int
    said: tuple[str, ...]
    classes: Tensor
    pixels: Pixels

    def split(self, name: str) -> Split:
        """The split called `name`; raises UsageError for another word."""
        if name not in NAMES:
            raise UsageError(f"Unknown split {name!r}. Fix: choose one of {', '.join(NAMES)}")
        return getattr(self, name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should know about these pictures, a sentence each."""
        said = list(self.said)
        if self.bad:
            said.append(f"{len(self.bad)} unreadable pictures are left out, the first: {self.bad[0]}")
        if self.duplicates:
            said.append(f"{self.duplicates} pictures are copies of others; no copy is in two splits")
        if self.contradictions:
            said.append(
                f"{self.contradictions} pictures appear under more than one class; check their labels"
            )
        return tuple(said)

    def n(self, split: str) -> int:
        """The number of examples in `split`."""
        return len(self.split(split))

    def targets(self, split: str) -> Tensor:
        """Class numbers [n] of `split`, in its fixed order: that of `batches` without shuffling."""
        return self.classes[torch.tensor(self.split(split).indices, dtype=torch.int64)]

    def example(self, batch_size: int) -> Tensor:
        """Noise in the shape of these pictures, [batch_size, C, H, W] of float32, always the same."""
        return torch.randn(batch_size, *self.size, generator=torch.Generator().manual_seed(0))

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        augment: bool | str = False,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        """Batches of (images [b, C, H, W] normalised float32, targets [b] int64) of `split`.

        `augment` is True for this data's own policy, or a policy's name; the view of an example depends on
        (seed, epoch, example) alone. `shuffle` orders by (seed, epoch). `limit` takes the split's first
        examples, which are a random sample of it. A last batch of one joins the one before it, since batch
        norm cannot train on one.
        """
        indices = self.split(split).indices
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(
                f"batch_size {batch_size} and limit {limit} must be at least 1. Fix: give larger numbers"
            )
        policy = policy_named(self.augmentation if augment is True else augment or "none")
        indices = indices[:limit]
        if shuffle:
            order = uniform(seed ^ 0x5DEECE66D, epoch, indices, 1)[:, 0].argsort(kind="stable")
            indices = tuple(indices[i] for i in order.tolist())
        return (self._batch(chunk, policy, seed, epoch) for chunk in _chunks(indices, batch_size))

    def _batch(self, indices: Sequence[int], policy: Policy | None, seed: int, epoch: int) -> Batch:
        images = self.pixels.take(indices).float().div_(255.0)
        if policy is not None:
            images = views(images, policy, seed=seed, epoch=epoch, indices=indices)
        images = images.expand(-1, self.size[0], -1, -1)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (images - mean).div_(std), self.classes[torch.tensor(indices, dtype=torch.int64)]


def _chunks(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    starts = list(range(0, len(indices), size))
    if len(starts) > 1 and len(indices) - starts[-1] == 1 and size > 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(indices)], strict=True):
        yield indices[start:end]
