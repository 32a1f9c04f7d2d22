"""Labelled examples in three splits, whatever they are: pictures, texts or clips."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from penjing.core import UsageError
from penjing.tasks._buckets import in_batches
from penjing.tasks._examples import Example, Examples
from penjing.tasks._splits import NAMES, Split


class Contents(Protocol):
    """What examples of one kind are to a network, by their numbers."""

    @property
    def called(self) -> str:
        """What remarks call them."""
        ...

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of one typical input: (C, H, W), (tokens,), (samples,) or (frames, bins)."""
        ...

    def policy(self, augment: bool | str) -> Any:
        """The augmentation that this word means: True is the data's own, None is none. UsageError for another."""
        ...

    def shuffled(
        self, indices: Sequence[int], batch_size: int, seed: int, epoch: int
    ) -> Iterable[Sequence[int]]:
        """`indices` in batches, in an order of (seed, epoch); a last batch of one joins the one before it."""
        ...

    def by_length(self, indices: Sequence[int]) -> np.ndarray:
        """Places in `indices`, the shortest example first; equal lengths keep their order."""
        ...

    def batch(self, indices: Sequence[int], policy: Any, seed: int, epoch: int) -> Any:
        """(inputs, targets) of these examples; a view depends on (seed, epoch, example) alone."""
        ...

    def targets(self, indices: Sequence[int]) -> Any: ...

    def example(self, batch_size: int) -> Any:
        """Inputs of that many typical examples, always the same; they carry no data."""
        ...


Kind = TypeVar("Kind", bound=Contents)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Labelled(Generic[Kind]):
    """Examples of one kind, split and ready to be drawn.

    `train` also serves to calibrate; `selection` chooses epochs and candidates; `certification` is touched by nothing
    else. `names` call every example by its file or row; `bad` lists those left out, with the reason. `duplicates`
    counts examples whose content others have too; `contradictions` the different contents that stand under several
    labels; `said` are the remarks of source and kind. `digests` are 64 bits of each example's content, `examples` what
    the source gave; `given` are 64 bits of what a network is given of each, alike for pictures and clips that were only
    stored otherwise and for texts that differ in white space.
    """

    name: str
    source: str
    licence: str
    labels: tuple[str, ...]
    train: Split
    selection: Split
    certification: Split
    examples: Sequence[Example]
    bad: tuple[str, ...]
    duplicates: int
    contradictions: int
    said: tuple[str, ...]
    digests: np.ndarray
    given: np.ndarray
    contents: Kind

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(example.name for example in self.examples)

    @property
    def groups(self) -> tuple[str | None, ...]:
        """What each example belongs to (a voice), where the source tells."""
        return tuple(example.group for example in self.examples)

    def split(self, name: str) -> Split:
        """The split called `name`; raises UsageError for another word."""
        if name not in NAMES:
            raise UsageError(f"Unknown split {name!r}. Fix: choose one of {', '.join(NAMES)}")
        return getattr(self, name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should know about these examples, a sentence each."""
        said, called = list(self.said), self.contents.called
        if self.bad:
            said.append(f"{len(self.bad)} {called} are left out, the first: {self.bad[0]}")
        if self.duplicates:
            said.append(f"{self.duplicates} {called} are copies of others; no copy is in two splits")
        if self.contradictions:
            said.append(
                f"{self.contradictions} {called} appear under more than one label; check their labels"
            )
        return tuple(said)

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of one typical input: (C, H, W), (tokens,), (samples,) or (frames, bins)."""
        return self.contents.size

    def n(self, split: str) -> int:
        """The number of examples in `split`."""
        return len(self.split(split))

    def marks(self, split: str) -> np.ndarray:
        """By what the examples of `split` are known again: 64 bits of the content and 64 of what is given, [n, 2]."""
        own = list(self.split(split).indices)
        return np.stack([self.digests[own], self.given[own]], 1)

    def copies(self, split: str) -> int:
        """How many examples of `split` a network is given that others of it are already."""
        own = self.given[list(self.split(split).indices)]
        return len(own) - len(np.unique(own))

    def targets(self, split: str) -> Any:
        """Class numbers [n], tags or transcripts of `split`, in the order of `batches` without shuffling."""
        return self.contents.targets(self.split(split).indices)

    def example(self, batch_size: int) -> Any:
        """Inputs of that many typical examples, always the same; they carry no data."""
        return self.contents.example(batch_size)

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
    ) -> Iterator[Any]:
        """Batches (inputs, targets) of `split`, padded to the longest of each where lengths differ.

        `augment` is True for this data's own policy, or a policy's name; the view of an example depends on (seed,
        epoch, example) alone. `shuffle` orders by (seed, epoch), similar lengths together. `limit` takes the split's
        first examples, which are a random sample of it. A last batch of one joins the one before it, since batch norm
        cannot train on one.
        """
        policy = self.contents.policy(augment)
        chunks = self.indices(split, batch_size, seed=seed, epoch=epoch, shuffle=shuffle, limit=limit)
        return (self.contents.batch(chunk, policy, seed, epoch) for chunk in chunks)

    def indices(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: bool = False,
        limit: int | None = None,
    ) -> list[Sequence[int]]:
        """Which examples each batch holds that `batches` gives for the same arguments."""
        indices = self._limited(split, batch_size, limit)
        if shuffle:
            return [*self.contents.shuffled(indices, batch_size, seed, epoch)]
        return [*in_batches(indices, batch_size)]

    def bucketed(
        self, split: str, batch_size: int, limit: int | None = None
    ) -> tuple[torch.Tensor, Iterator[Any]]:
        """(order, batches): `split` from its shortest example to its longest, with the least padding. The i-th example
        served is at place order[i] of the split.
        """
        indices = self._limited(split, batch_size, limit)
        order = self.contents.by_length(indices)
        chunks = in_batches([indices[i] for i in order.tolist()], batch_size)
        return torch.from_numpy(order), (self.contents.batch(chunk, None, 0, 0) for chunk in chunks)

    def _limited(self, split: str, batch_size: int, limit: int | None) -> tuple[int, ...]:
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(
                f"batch_size {batch_size} and limit {limit} must be at least 1. Fix: give larger numbers"
            )
        return self.split(split).indices[:limit]


def labelled(
    found: Examples,
    contents: Kind,
    kept: Sequence[Example],
    digests: Sequence[bytes],
    given: Sequence[bytes],
    splits: tuple[Split, Split, Split],
    *,
    contradictions: int,
    bad: tuple[str, ...] = (),
    said: Iterable[str] = (),
    labels: tuple[str, ...] | None = None,
) -> Labelled[Kind]:
    """The `kept` examples of `found`, whose `contents` these are; `digests` of what the source gave, `given` of what
    networks are given of it.
    """
    train, selection, certification = splits
    return Labelled(
        name=found.name,
        source=found.source,
        licence=found.licence,
        labels=found.labels if labels is None else labels,
        train=train,
        selection=selection,
        certification=certification,
        examples=kept,
        bad=bad,
        duplicates=len(digests) - len(set(digests)),
        contradictions=contradictions,
        said=(*found.remarks, *said),
        digests=_brief(digests),
        given=_brief(given),
        contents=contents,
    )


def _brief(digests: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digest[:8] for digest in digests), dtype="<i8")


def class_numbers(labels: Sequence[str], given: Iterable[str]) -> np.ndarray:
    """Which of `labels` each one given is, int64."""
    number = {label: n for n, label in enumerate(labels)}
    return np.array([number[label] for label in given], dtype=np.int64)
