"""Clips with transcripts in three splits, as batches."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from penjing.core import DataError, Sounds, clean
from penjing.tasks._ctc import Transcripts, frames_needed
from penjing.tasks._examples import Example, Examples
from penjing.tasks._labelled import Labelled, labelled
from penjing.tasks._prepare import Options
from penjing.tasks._sound_batches import SoundBatcher
from penjing.tasks._sound_features import feature_maker
from penjing.tasks._sound_store import LoadedSounds
from penjing.tasks._sounds import Clips, augmentation_of, clips, cropped, heard, loaded_for
from penjing.tasks._speech_alphabet import Alphabet, chosen, fitted, tidy
from penjing.tasks._splits import NAMES, Split, ToSplit, contradictions, make_splits

SHOWN = 8


def speech_data_of(found: Examples, reads: Sounds, options: Options) -> Labelled[Clips]:
    """Clips with transcripts for a network that reads `reads`, in splits by group and content.

    The alphabet is `options.alphabet` (see `alphabet_named`), else the network's own where that covers the transcripts,
    else their characters. Otherwise as `sound_data_of`. Raises DataError, UsageError.
    """
    augmentation = augmentation_of(found, options)
    found, bad = _with_words(found, options.skip_bad)
    written = [tidy(str(example.label)) for example in found.examples]
    alphabet, new = chosen(options.alphabet, options.own_alphabet, written)
    transcripts, recased = fitted(alphabet, written)
    batcher = SoundBatcher(feature_maker(reads), speech=True)
    loaded = loaded_for(found, batcher, options)
    _whole(loaded, batcher)
    kept = [found.examples[i] for i in loaded.kept]
    words = [transcripts[i] for i in loaded.kept]
    labels = [alphabet.encoded(text) for text in words]
    numbers = {text: n for n, text in enumerate(dict.fromkeys(words))}
    said = (new, recased, *heard(loaded, batcher), *_too_fast(labels, loaded, batcher))
    return labelled(
        found,
        clips(loaded, batcher, Transcripts(labels), augmentation, alphabet),
        kept,
        loaded.digests,
        loaded.given,
        _split_up(found, kept, loaded.digests, [written[i] for i in loaded.kept], options),
        labels=alphabet.symbols,
        bad=(*bad, *loaded.bad),
        contradictions=contradictions(loaded.digests, np.array([numbers[text] for text in words])),
        said=filter(None, said),
    )


def _with_words(found: Examples, skip_bad: bool) -> tuple[Examples, tuple[str, ...]]:
    """The examples that say something, and the others by name; DataError where there are others, unless `skip_bad`."""
    silent = [e for e in found.examples if not isinstance(e.label, str) or not e.label.strip()]
    bad = tuple(clean(f"{example.name}: the transcript is empty") for example in silent)
    if bad and not skip_bad:
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(
            f"Transcripts that are empty ({len(bad)}):\n  " + "\n  ".join(bad[:SHOWN]) + more + "\n"
            "Fix: fill them in or remove them, or leave them out with skip_bad=True (--skip-bad)"
        )
    gone = {id(example) for example in silent}
    return replace(found, examples=[e for e in found.examples if id(e) not in gone]), bad


def _whole(loaded: LoadedSounds, batcher: SoundBatcher) -> None:
    cut = cropped(loaded, batcher)
    if cut:
        raise DataError(
            f"{cut} of {len(loaded.kept)} clips are longer than the {batcher.maker.frames:,} frames that the network "
            "reads, and their transcripts tell more than it would hear. Fix: cut these clips, or choose a network that "
            "reads any length"
        )


def _split_up(
    found: Examples, kept: Sequence[Example], digests: Sequence[bytes], words: Sequence[str], options: Options
) -> tuple[Split, Split, Split]:
    """By group and content; there are no classes. Transcripts, as they are written, are part of the fingerprints."""
    told = [hashlib.sha256(d + text.encode()).digest() for d, text in zip(digests, words, strict=True)]
    examples = ToSplit(
        digests=told,
        targets=np.zeros(len(kept), dtype=np.int64),
        labels=("speech", "nothing"),
        parts=[example.part for example in kept],
        groups=[example.group or d.hex() for example, d in zip(kept, digests, strict=True)],
    )
    shares = options.splits if options.splits is not None else found.splits
    if len(set(examples.ties)) < 3 * options.per_class_min and not any(examples.parts) and shares is None:
        raise DataError(
            f"Too few clips: {len(kept)}, of {len(set(examples.ties))} groups; three splits need at least "
            f"{3 * options.per_class_min}. Fix: add clips, or speakers where clips of one belong together"
        )
    splits = make_splits(examples, seed=options.seed, shares=shares, minimum=0)
    for name, split in zip(NAMES, splits, strict=True):
        asked = shares is None or shares[NAMES.index(name)] > 0
        if asked and len(split) < options.per_class_min:
            raise DataError(
                f"Too few clips: the {name} split has {len(split)} of {len(kept)} and needs {options.per_class_min}. "
                "Fix: add clips, or speakers where clips of one belong together"
            )
    return splits


def _too_fast(
    labels: Sequence[tuple[int, ...]], loaded: LoadedSounds, batcher: SoundBatcher
) -> Iterator[str]:
    """Clips whose transcripts need more frames than the network is given, let alone what it makes of them."""
    hop = batcher.maker.hop
    frames = loaded.lengths // hop + (hop > 1)
    over = sum(frames_needed(row) > count for row, count in zip(labels, frames.tolist(), strict=True))
    if over:
        yield f"{over} of {len(labels)} clips are too short to spell their transcripts; they teach nothing"


def alphabet_for(data: Labelled[Clips]) -> Alphabet:
    """The alphabet of `data`; DataError where it holds classes."""
    if data.contents.alphabet is None:
        raise DataError(f"{data.name} holds classes and no transcripts. Fix: load it for speech-recognition")
    return data.contents.alphabet
