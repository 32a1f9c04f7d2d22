"""Labelled sounds in three splits, as batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core import Sounds, UsageError
from penjing.tasks._buckets import bucketed_batches, by_length, in_batches, typical
from penjing.tasks._ctc import Spoken, Transcripts
from penjing.tasks._examples import Examples
from penjing.tasks._prepare import Options, one_label, split_up
from penjing.tasks._sound_augment import SoundPolicy, sound_policy, sound_views
from penjing.tasks._sound_batches import SoundBatcher, example_inputs
from penjing.tasks._sound_features import feature_maker
from penjing.tasks._sound_store import LoadedSounds, SoundStore, load_sounds
from penjing.tasks._speech_alphabet import Alphabet
from penjing.tasks._splits import NAMES, Split, contradictions

SoundBatch = tuple[Any, Any]
MAX_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SoundData:
    """Clips for classification or speech recognition, split and ready to be drawn.

    `train` also serves to calibrate; `selection` chooses epochs and candidates; `certification` is touched by
    nothing else. `answers` are the class of each clip, or its transcript; `labels` are the classes, or the
    symbols of the alphabet. `lengths` are in samples at the network's rate. `names` calls every example by its
    file or row; `bad` lists the clips left out, with the reason. `augmentation` is the policy that `augment=True`
    means. `duplicates` counts examples whose content others have too; `contradictions` the different contents
    that stand under several labels.
    """

    name: str
    source: str
    licence: str
    labels: tuple[str, ...]
    train: Split
    selection: Split
    certification: Split
    reads: Sounds
    augmentation: str
    names: tuple[str, ...]
    bad: tuple[str, ...]
    duplicates: int
    contradictions: int
    said: tuple[str, ...]
    answers: Tensor | Transcripts
    lengths: np.ndarray
    batcher: SoundBatcher
    store: SoundStore
    alphabet: Alphabet | None = None

    def split(self, name: str) -> Split:
        """The split called `name`; raises UsageError for another word."""
        if name not in NAMES:
            raise UsageError(f"Unknown split {name!r}. Fix: choose one of {', '.join(NAMES)}")
        return getattr(self, name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should know about these clips, a sentence each."""
        said = list(self.said)
        if self.bad:
            said.append(f"{len(self.bad)} clips are left out, the first: {self.bad[0]}")
        if self.duplicates:
            said.append(f"{self.duplicates} clips are copies of others; no copy is in two splits")
        if self.contradictions:
            said.append(f"{self.contradictions} clips appear under more than one label; check their labels")
        return tuple(said)

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of one input of typical length: (samples,), (frames, bins) or (channels, bins, frames)."""
        inputs = self.example(1)
        return tuple((inputs[self.reads.keyword] if isinstance(inputs, dict) else inputs).shape[1:])

    def n(self, split: str) -> int:
        """The number of examples in `split`."""
        return len(self.split(split))

    def targets(self, split: str) -> Any:
        """Class numbers [n], or transcripts, of `split` in its fixed order."""
        indices = self.split(split).indices
        return self._answers(indices, torch.ones(len(indices)))

    def example(self, batch_size: int) -> Any:
        """The network's inputs for `batch_size` clips of noise as long as three quarters of the clips are at most,
        always the same.
        """
        length = typical(self.lengths, max(8, self.reads.sample_rate // 25))
        return example_inputs(self.batcher, length, batch_size)

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
    ) -> Iterator[SoundBatch]:
        """Batches of (the network's inputs, answers) of `split`, each padded to its longest clip.

        `augment` is True for this data's own policy, or a policy's name; the view of a clip depends on (seed, epoch,
        clip) alone. `shuffle` orders by (seed, epoch), with clips of similar length together where lengths are not
        fixed. `limit` takes the split's first examples, which are a random sample of it. A last batch of one joins the
        one before it.
        """
        indices = self._limited(split, batch_size, limit)
        policy = sound_policy(self.augmentation if augment is True else augment or "none")
        chunks: Iterator[Sequence[int]] = iter(in_batches(indices, batch_size))
        if shuffle:
            alike = self.lengths if self.batcher.maker.frames is None else np.zeros_like(self.lengths)
            chunks = iter(bucketed_batches(indices, alike, batch_size, seed, epoch))
        return (self._batch(chunk, policy, seed, epoch) for chunk in chunks)

    def bucketed(
        self, split: str, batch_size: int, limit: int | None = None
    ) -> tuple[Tensor, Iterator[SoundBatch]]:
        """(order, batches): `split` from its shortest clip to its longest, with the least padding. The i-th example
        served is at place order[i] of the split.
        """
        indices = self._limited(split, batch_size, limit)
        order = by_length(indices, self.lengths)
        served = [indices[i] for i in order.tolist()]
        return torch.from_numpy(order), (self._batch(c, None, 0, 0) for c in in_batches(served, batch_size))

    def _limited(self, split: str, batch_size: int, limit: int | None) -> tuple[int, ...]:
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(
                f"batch_size {batch_size} and limit {limit} must be at least 1. Fix: give larger numbers"
            )
        return self.split(split).indices[:limit]

    def _batch(self, indices: Sequence[int], policy: SoundPolicy | None, seed: int, epoch: int) -> SoundBatch:
        clips = self.store.take(indices)
        if policy is not None:
            clips = sound_views(clips, policy, self.batcher.maker, seed=seed, epoch=epoch, indices=indices)
        inputs, share = self.batcher.put(clips)
        return inputs, self._answers(indices, share)

    def _answers(self, indices: Sequence[int], share: Tensor) -> Tensor | Spoken:
        if isinstance(self.answers, Transcripts):
            return self.answers.spoken(indices, share)
        return self.answers[torch.tensor(indices, dtype=torch.int64)]


def sound_data_of(found: Examples, reads: Sounds, options: Options) -> SoundData:
    """Labelled clips for classification by a network that reads `reads`, in splits as `make_splits` says.

    Clips longer than `options.max_seconds` (30) are refused. `options.augmentation` names the policy for
    training: none, light or standard, by default what suits the data. More than `options.cache_bytes` of features
    are made anew for each batch. Raises DataError, UsageError.
    """
    augmentation = options.augmentation or found.augmentation
    sound_policy(augmentation)
    batcher = SoundBatcher(feature_maker(reads))
    loaded = loaded_for(found, batcher, options)
    kept = [found.examples[i] for i in loaded.kept]
    number = {label: n for n, label in enumerate(found.labels)}
    targets = np.array([number[one_label(example)] for example in kept], dtype=np.int64)
    train, selection, certification = split_up(found, kept, loaded.digests, targets, options)
    return SoundData(
        name=found.name,
        source=found.source,
        licence=found.licence,
        labels=found.labels,
        train=train,
        selection=selection,
        certification=certification,
        reads=reads,
        augmentation=augmentation,
        names=tuple(example.name for example in kept),
        bad=loaded.bad,
        duplicates=len(loaded.digests) - len(set(loaded.digests)),
        contradictions=contradictions(loaded.digests, targets),
        said=(*found.remarks, *heard(loaded, batcher)),
        answers=torch.from_numpy(targets),
        lengths=loaded.lengths,
        batcher=batcher,
        store=loaded.store,
    )


def loaded_for(found: Examples, batcher: SoundBatcher, options: Options) -> LoadedSounds:
    seconds = MAX_SECONDS if options.max_seconds is None else options.max_seconds
    if not seconds > 0.0:
        raise UsageError(f"max_seconds is {seconds}; it must be above 0. Fix: {MAX_SECONDS:g} is usual")
    return load_sounds(
        found.examples,
        batcher.maker,
        max_seconds=seconds,
        skip_bad=options.skip_bad,
        cache_bytes=options.cache_bytes,
        threads=options.threads,
    )


def heard(loaded: LoadedSounds, batcher: SoundBatcher) -> Iterator[str]:
    """What people should know about how these clips sound to the network."""
    total, reads = len(loaded.kept), batcher.maker.reads
    if loaded.clipped:
        yield f"{loaded.clipped} of {total} clips are clipped: more than 1 % of their samples are at full scale"
    if loaded.upsampled:
        yield (
            f"{loaded.upsampled} of {total} clips have a lower sample rate than the network's "
            f"{reads.sample_rate:,} Hz: nothing is in their upper frequencies"
        )
    cut = cropped(loaded, batcher)
    if cut:
        yield f"{cut} of {total} clips are longer than what the network reads; it gets a part of them"
    if batcher.maker.frames is None and not reads.mask:
        yield "The network takes no mask: the silence that pads a clip to the longest of its batch is read too"


def cropped(loaded: LoadedSounds, batcher: SoundBatcher) -> int:
    """How many clips are longer than the fixed length."""
    maker = batcher.maker
    if maker.frames is None:
        return 0
    return int((loaded.lengths // maker.hop + (maker.hop > 1) > maker.frames + maker.even).sum())
