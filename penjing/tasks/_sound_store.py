"""Every clip's features by number: kept in memory, or made anew whenever they are asked for."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from penjing.core import DataError, clean
from penjing.tasks._examples import Example
from penjing.tasks._sound_features import FeatureMaker
from penjing.tasks._sound_files import BadSound, Clip, read_clip

AT_ONCE = 256  # clips handed to the threads together, so that no more than these wait in memory
SHOWN = 8


class SoundStore(Protocol):
    """Features of clips by number."""

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """Features of each clip, time first."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class KeptSounds:
    """All features in memory."""

    features: Sequence[Tensor]

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        return [self.features[i] for i in indices]


@dataclass(frozen=True, slots=True, eq=False)
class StreamedSounds:
    """Too much for memory: each clip is read anew when it is taken."""

    contents: Sequence[tuple[Any, int | None]]
    maker: FeatureMaker
    max_seconds: float
    threads: int

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(self._features, indices))

    def _features(self, i: int) -> Tensor:
        content, own = self.contents[i]
        try:
            return self.maker.make(
                read_clip(content, self.maker.reads.sample_rate, self.max_seconds, own).samples
            )
        except BadSound as error:
            raise DataError(
                f"Clip {i} could be read before, and now it cannot: {error}. Fix: leave the files as they are"
            ) from error


class LoadedSounds(NamedTuple):
    """The store; per kept clip its length in samples at the network's rate, and the sha256 of its content and of its
    samples; which were kept; what was wrong with others; how many are clipped, and how many have a lower rate than the
    network's.
    """

    store: SoundStore
    lengths: np.ndarray
    digests: list[bytes]
    given: list[bytes]
    kept: list[int]
    bad: tuple[str, ...]
    clipped: int
    upsampled: int


class _Read(NamedTuple):
    length: int
    digest: bytes
    given: bytes
    clipped: bool
    upsampled: bool
    features: Tensor | None


def load_sounds(
    examples: Sequence[Example],
    maker: FeatureMaker,
    *,
    max_seconds: float,
    skip_bad: bool,
    cache_bytes: int,
    threads: int | None = None,
) -> LoadedSounds:
    """Read every clip once: check it, hash it and, where all fit into `cache_bytes`, keep its features.

    Raises DataError that names the clips that cannot be used, unless `skip_bad`, which leaves them out and lists them.
    """
    threads = threads or min(8, os.cpu_count() or 1)
    results = _read_all(examples, maker, max_seconds, cache_bytes, threads)
    bad = tuple(clean(f"{e.name}: {r}") for e, r in zip(examples, results, strict=True) if isinstance(r, str))
    if bad and not skip_bad:
        raise DataError(_unusable(bad))
    kept = [i for i, result in enumerate(results) if isinstance(result, _Read)]
    if not kept:
        raise DataError(
            f"No clip is left of {len(examples)}; {bad[0] if bad else ''}. Fix: give clips that can be read"
        )
    reads = [result for result in results if isinstance(result, _Read)]
    features = [read.features for read in reads if read.features is not None]
    store: SoundStore = KeptSounds(features)
    if len(features) < len(reads):
        contents = [(examples[i].content, examples[i].rate) for i in kept]
        store = StreamedSounds(contents, maker, max_seconds, threads)
    return LoadedSounds(
        store=store,
        lengths=np.array([read.length for read in reads], dtype=np.int64),
        digests=[read.digest for read in reads],
        given=[read.given for read in reads],
        kept=kept,
        bad=bad,
        clipped=sum(read.clipped for read in reads),
        upsampled=sum(read.upsampled for read in reads),
    )


def _read_all(
    examples: Sequence[Example], maker: FeatureMaker, max_seconds: float, cache_bytes: int, threads: int
) -> list[_Read | str]:
    """What each clip is, or why it cannot be used; features only as long as all of them fit."""
    rate, room = maker.reads.sample_rate, cache_bytes

    def read(example: Example) -> _Read | str:
        try:
            clip: Clip = read_clip(example.content, rate, max_seconds, example.rate)
        except BadSound as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error}"
        features = maker.make(clip.samples) if room >= 0 else None
        given = hashlib.sha256(np.ascontiguousarray(clip.samples).data).digest()
        return _Read(len(clip.samples), clip.digest, given, clip.clipped, clip.rate < rate, features)

    results: list[_Read | str] = []
    waiting = iter(examples)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(waiting, AT_ONCE)):
            found = list(pool.map(read, some))
            room -= sum(_bytes(one) for one in found)
            results += found
            if room < 0:
                results = [one if isinstance(one, str) else one._replace(features=None) for one in results]
    return results


def _bytes(one: _Read | str) -> int:
    return 0 if isinstance(one, str) or one.features is None else 4 * one.features.numel()


def _unusable(bad: Sequence[str]) -> str:
    more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    shown = "\n  ".join(bad[:SHOWN])
    return (
        f"Sounds that cannot be used ({len(bad)}):\n  {shown}{more}\n"
        "Fix: replace or remove them, or leave them out with skip_bad=True (--skip-bad)"
    )
