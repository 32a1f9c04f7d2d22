"""A tiny task, data and networks: training runs here take milliseconds."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@dataclass
class TinyTask:
    name: str = "tiny"

    def inputs(self, batch: Any) -> Tensor:
        return batch[0]

    def targets(self, batch: Any) -> Tensor:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        return outputs

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs, batch[1])

    def metric(self, logits: Tensor, targets: Tensor) -> dict[str, Any]:
        right = (logits.argmax(-1) == targets).float()
        per_class = tuple(float(right[targets == c].mean()) for c in range(4))
        return {"accuracy": float(right.mean()), "macro_recall": sum(per_class) / 4, "per_class": per_class}


@dataclass
class TinyData:
    """Four classes: which quadrant of an 8x8 picture is bright."""

    examples: int = 97
    views: list[tuple[str, Any, int, int]] = field(default_factory=list)
    poisoned: int | None = None

    def n(self, split: str) -> int:
        return {"train": self.examples, "selection": 40}[split]

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        augment: Any = "none",
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        images, targets = self._make(split)
        self.views.append((split, augment, seed, epoch))
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(len(targets), generator=generator) if shuffle else torch.arange(len(targets))
        if augment != "none":
            images = images + 0.1 * torch.randn(images.shape, generator=generator)
        if split == "train" and self.poisoned == epoch:
            images = images * float("nan")
        for rows in order[:limit].split(batch_size):
            yield images[rows], targets[rows]

    def indices(
        self, split: str, batch_size: int, *, seed: int = 0, epoch: int = 0, **_: Any
    ) -> list[list[int]]:
        order = torch.randperm(self.n(split), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        return [rows.tolist() for rows in order.split(batch_size)]

    def _make(self, split: str) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed({"train": 1, "selection": 2}[split])
        targets = torch.arange(self.n(split)) % 4
        images = torch.randn(self.n(split), 1, 8, 8, generator=generator)
        for image, target in zip(images, targets.tolist(), strict=True):
            image[0, 4 * (target // 2) : 4 * (target // 2) + 4, 4 * (target % 2) : 4 * (target % 2) + 4] += (
                0.8
            )
        return images, targets


class TinyNet(nn.Module):
    def __init__(self, width: int = 8, classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1, stride=2), nn.BatchNorm2d(width), nn.ReLU()),
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width * 4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(nn.functional.adaptive_avg_pool2d(self.blocks(x), 2).flatten(1)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def task() -> TinyTask:
    return TinyTask()


@pytest.fixture
def data() -> TinyData:
    return TinyData()


@pytest.fixture
def net():
    """Builds a TinyNet with the same weights for the same arguments."""

    def build(**options: Any) -> TinyNet:
        torch.manual_seed(0)
        return TinyNet(**options).eval()

    return build
