"""What any task is, and any labelled data."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from penjing.tasks._splits import Split

Metrics = Mapping[str, float | tuple[float, ...]]


class Task(Protocol):
    """What turns batches and outputs into numbers: implement it for detection, regression, anything.

    It may also say `headline`, the name of the metric that counts and whether larger is better; without it that is
    "accuracy", and larger is better.
    """

    @property
    def name(self) -> str: ...

    def inputs(self, batch: Any) -> Any:
        """What the network is called with: a tensor, a tuple (args) or a dict (kwargs)."""
        ...

    def targets(self, batch: Any) -> Any:
        """What the loss compares with, first dimension the examples."""
        ...

    def logits(self, outputs: Any) -> Tensor:
        """The tensor in the network's outputs that `metric` and distillation look at."""
        ...

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """The scalar training loss, a mean over the batch."""
        ...

    def metric(self, logits: Any, targets: Any, /) -> Mapping[str, Any]:
        """Figures over a whole split; one of them is called "accuracy" where that makes sense."""
        ...


@runtime_checkable
class SequenceTask(Task, Protocol):
    """A task whose logits are [examples, positions, classes], of which padded positions do not count.

    `metric` gets what `answers` and `truths` gave, over a whole split.
    """

    def positions(self, logits: Tensor, batch: Any) -> Tensor:
        """Which positions count, bool [examples, positions]."""
        ...

    def answers(self, logits: Tensor, batch: Any) -> Sequence[Any]:
        """One answer per example: the tags of its words, its transcript."""
        ...

    def truths(self, batch: Any) -> Sequence[Any]:
        """What the answers are compared with."""
        ...


def headline(task: Task) -> tuple[str, bool]:
    """The metric that counts, and whether larger is better."""
    return getattr(task, "headline", ("accuracy", True))


class Data(Protocol):
    """Batches of the splits "train", "selection" and "certification"; `Labelled` is one.

    Order and augmentation of a batch are functions of (seed, epoch) alone; `n` is the number of examples.
    Data of differing lengths may also offer `bucketed(split, batch_size) -> (order, batches)`: the split by
    length, example i of it being number order[i] of the split. `evaluate` takes it where it is. `TracedData` also
    says which examples a batch holds.
    """

    def n(self, split: str) -> int: ...

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        augment: Any = ...,
        seed: int = ...,
        epoch: int = ...,
        shuffle: bool = ...,
        limit: int | None = ...,
    ) -> Iterable[Any]:
        """Batches (inputs, targets) of `split`, in its fixed order unless `shuffle`."""
        ...


@runtime_checkable
class TracedData(Data, Protocol):
    """Data that says which examples each of its batches holds, so that what is known of them can be kept."""

    def indices(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int = ...,
        epoch: int = ...,
        shuffle: bool = ...,
        limit: int | None = ...,
    ) -> Sequence[Sequence[int]]:
        """Which examples each batch holds that `batches` gives for the same arguments."""
        ...


class LabelledData(TracedData, Protocol):
    """Labelled examples in three splits.

    `train` also serves to calibrate; `selection` chooses epochs and candidates; `certification` is touched by nothing
    else. `names` calls every example by its file or row; `bad` lists those left out, with the reason. `duplicates`
    counts examples whose content others have too; `contradictions` the different contents under several labels.
    """

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def licence(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def train(self) -> Split: ...
    @property
    def selection(self) -> Split: ...
    @property
    def certification(self) -> Split: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def digests(self) -> np.ndarray:
        """64 bits of each example's content, int64 [examples]."""
        ...

    def marks(self, split: str) -> np.ndarray:
        """By what examples are known again: 64 bits of the content and of what a network is given, int64 [n, 2]."""
        ...

    def copies(self, split: str) -> int:
        """How many examples of `split` a network is given that others of it are already."""
        ...

    @property
    def groups(self) -> tuple[str | None, ...]:
        """What each example belongs to (a voice, a document), None where nothing tells."""
        ...

    @property
    def bad(self) -> tuple[str, ...]: ...
    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should know about this data, a sentence each."""
        ...

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of one typical input: (C, H, W), (tokens,), (samples,) or (frames, bins)."""
        ...

    def example(self, batch_size: int) -> Any:
        """Inputs of that many typical examples, always the same; they carry no data."""
        ...
