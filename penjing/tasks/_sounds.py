"""Labelled sounds as batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core import Sounds, UsageError
from penjing.tasks._buckets import bucketed_batches, by_length, typical
from penjing.tasks._ctc import Spoken, Transcripts
from penjing.tasks._examples import Examples
from penjing.tasks._labelled import Labelled, class_numbers, labelled
from penjing.tasks._prepare import Options, one_label, split_up
from penjing.tasks._sound_augment import SoundPolicy, sound_policy, sound_views
from penjing.tasks._sound_batches import SoundBatcher, example_inputs
from penjing.tasks._sound_features import feature_maker
from penjing.tasks._sound_store import LoadedSounds, SoundStore, load_sounds
from penjing.tasks._speech_alphabet import Alphabet
from penjing.tasks._splits import contradictions

SoundBatch = tuple[Any, Any]
MAX_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clips:
    """The Contents of sounds for classification or speech recognition.

    `answers` are the class of each clip, or its transcript in the symbols of `alphabet`. `lengths` are in samples at
    the network's rate. `augmentation` is the policy that `augment=True` means.
    """

    augmentation: str
    answers: Tensor | Transcripts
    lengths: np.ndarray
    batcher: SoundBatcher
    store: SoundStore
    alphabet: Alphabet | None = None
    called: str = "clips"

    @property
    def reads(self) -> Sounds:
        return self.batcher.maker.reads

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of one input of typical length: (samples,), (frames, bins) or (channels, bins, frames)."""
        inputs = self.example(1)
        return tuple((inputs[self.reads.keyword] if isinstance(inputs, dict) else inputs).shape[1:])

    def policy(self, augment: bool | str) -> SoundPolicy | None:
        return sound_policy(self.augmentation if augment is True else augment or "none")

    def shuffled(self, indices: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        alike = self.lengths if self.batcher.maker.frames is None else np.zeros_like(self.lengths)
        return bucketed_batches(indices, alike, batch_size, seed, epoch)

    def by_length(self, indices: Sequence[int]) -> np.ndarray:
        return by_length(indices, self.lengths)

    def targets(self, indices: Sequence[int]) -> Tensor | Spoken:
        """Class numbers [n], or transcripts."""
        return self._answers(indices, torch.ones(len(indices)))

    def example(self, batch_size: int) -> Any:
        """The network's inputs for clips of noise as long as three quarters of the clips are at most."""
        length = typical(self.lengths, max(8, self.reads.sample_rate // 25))
        return example_inputs(self.batcher, length, batch_size)

    def batch(self, indices: Sequence[int], policy: SoundPolicy | None, seed: int, epoch: int) -> SoundBatch:
        """(the network's inputs, answers), padded to the longest clip."""
        clips = self.store.take(indices)
        if policy is not None:
            clips = sound_views(clips, policy, self.batcher.maker, seed=seed, epoch=epoch, indices=indices)
        inputs, share = self.batcher.put(clips)
        return inputs, self._answers(indices, share)

    def _answers(self, indices: Sequence[int], share: Tensor) -> Tensor | Spoken:
        if isinstance(self.answers, Transcripts):
            return self.answers.spoken(indices, share)
        return self.answers[torch.tensor(indices, dtype=torch.int64)]


def sound_data_of(found: Examples, reads: Sounds, options: Options) -> Labelled[Clips]:
    """Labelled clips for classification by a network that reads `reads`, in splits as `make_splits` says.

    Clips longer than `options.max_seconds` (30) are refused. `options.augmentation` names the policy for
    training: none, light or standard, by default what suits the data. More than `options.cache_bytes` of features
    are made anew for each batch. Raises DataError, UsageError.
    """
    batcher = SoundBatcher(feature_maker(reads))
    augmentation = augmentation_of(found, options)
    loaded = loaded_for(found, batcher, options)
    kept = [found.examples[i] for i in loaded.kept]
    targets = class_numbers(found.labels, map(one_label, kept))
    return labelled(
        found,
        clips(loaded, batcher, torch.from_numpy(targets), augmentation),
        kept,
        loaded.digests,
        loaded.given,
        split_up(found, kept, loaded.digests, targets, options),
        bad=loaded.bad,
        contradictions=contradictions(loaded.digests, targets),
        said=heard(loaded, batcher),
    )


def clips(
    loaded: LoadedSounds,
    batcher: SoundBatcher,
    answers: Tensor | Transcripts,
    augmentation: str,
    alphabet: Alphabet | None = None,
) -> Clips:
    return Clips(
        augmentation=augmentation,
        answers=answers,
        lengths=loaded.lengths,
        batcher=batcher,
        store=loaded.store,
        alphabet=alphabet,
    )


def augmentation_of(found: Examples, options: Options) -> str:
    """The policy asked for, or what suits the data; UsageError where there is none of that name."""
    augmentation = options.augmentation or found.augmentation
    sound_policy(augmentation)
    return augmentation


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
