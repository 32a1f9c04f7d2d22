"""Sentences with a tag for every word, in three splits, as batches of tokens."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from penjing.core import DataError, Texts, clean
from penjing.tasks._entities import OUTSIDE, entities
from penjing.tasks._examples import Example, Examples, flat, ordered_labels
from penjing.tasks._labelled import Labelled, labelled
from penjing.tasks._prepare import Options, split_up
from penjing.tasks._ragged import UNCOUNTED, Ragged, ragged
from penjing.tasks._splits import NAMES, Split
from penjing.tasks._texts import (
    TokenRows,
    check_augmentation,
    digest,
    kept_or_refused,
    shortened,
    unwritable,
    without_spaces,
)
from penjing.tasks._tokenizer import encoded, load_tokenizer, room, tokens_of

_NONE = "no entity"
_SHOWN = 8


class Aligned(NamedTuple):
    """Per token a tag number or -100; how many words the length limit cut off, and how many made no token."""

    tags: Ragged
    beyond: int
    vanished: int


def token_data_of(found: Examples, reads: Texts, options: Options) -> Labelled[TokenRows]:
    """Tagged sentences as tokens of what a network `reads`, in splits as `make_splits` says.

    The first token of a word carries its tag; other tokens do not count. Words beyond `options.max_length` tokens, and
    words that the tokenizer drops, are counted in `remarks`: no metric sees them. `labels` are the tags, "O" first.
    Splits are stratified by the rarest kind of entity in a sentence. Raises DataError, UsageError.
    """
    reads = shortened(reads, options.max_length)
    check_augmentation(options.augmentation or False)
    kept, bad = kept_or_refused(found.examples, _wrong, options.skip_bad)
    tokenizer = load_tokenizer(reads, words=True)
    chunks, _ = encoded(tokenizer, [example.content for example in kept], reads, words=True)
    tokens = tokens_of(tokenizer, chunks, reads)
    labels = tag_labels(kept)
    aligned = align([flat(example.label) for example in kept], word_numbers(chunks), labels)
    digests = [digest(example.content) for example in kept]
    strata, classes = stratify(kept, digests, options.per_class_min)
    splits = split_up(replace(found, labels=classes), kept, digests, strata, options)
    unmet = _unmet(kept, splits)
    train, selection, certification = (_sealed(split, kept) for split in splits)
    return labelled(
        found,
        TokenRows(reads=reads, answers=aligned.tags, tokens=tokens),
        kept,
        digests,
        [digest(without_spaces(example.content)) for example in kept],
        (train, selection, certification),
        labels=labels,
        bad=bad,
        contradictions=_contradictions(kept, digests),
        said=(*room(tokenizer, reads), *_counted(aligned, reads.max_length), *unmet),
    )


def tag_labels(examples: Sequence[Example]) -> tuple[str, ...]:
    """The tags that occur, "O" first."""
    tags = ordered_labels(tag for example in examples for tag in flat(example.label))
    return tuple(sorted(tags, key=lambda tag: tag != OUTSIDE))


def align(
    tags: Sequence[Sequence[str]], words: Iterable[tuple[Sequence[int | None], bool]], labels: Sequence[str]
) -> Aligned:
    """Tags of words given to the first token of each.

    `words` says of every sentence which word each token is from (None: a special token), and whether it was cut.
    """
    number = {label: n for n, label in enumerate(labels)}
    rows: list[list[int]] = []
    beyond = vanished = 0
    for sentence, (places, was_cut) in zip(tags, words, strict=True):
        row, last = [UNCOUNTED] * len(places), -1
        for token, word in enumerate(places):
            if word is not None and word > last:
                vanished += word - last - 1
                row[token], last = number[sentence[word]], word
        missing = len(sentence) - last - 1
        beyond, vanished = beyond + missing * was_cut, vanished + missing * (not was_cut)
        rows.append(row)
    return Aligned(ragged(rows, np.int16), beyond, vanished)


def stratify(
    examples: Sequence[Example], digests: Sequence[bytes], minimum: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(class number per sentence, classes): its rarest kind of entity, so that rare kinds reach every split.

    Kinds with too few sentences for three splits are put to those without an entity; where all sentences are of one
    class, the longer half is told from the shorter.
    """
    parts = [example.part for example in examples]
    met = [{entity.kind for entity in entities(flat(example.label))} for example in examples]
    common = Counter(kind for found in met for kind in found)
    named = [min(found, key=lambda kind: (common[kind], kind), default=_NONE) for found in met]
    counts = Counter((part, name) for _, part, name in set(zip(digests, parts, named, strict=True)))
    few = {name for name in set(named) for part in set(parts) if counts[part, name] < 3 * minimum}
    usual = Counter(name for name in named if name not in few).most_common(1)
    plenty = _NONE in named and _NONE not in few
    rest = usual[0][0] if usual and not plenty else _NONE
    named = [rest if name in few else name for name in named]
    if len(set(named)) < 2:
        named = _halves(examples)
    classes = tuple(sorted(set(named)))
    return np.array([classes.index(name) for name in named], dtype=np.int64), classes


def _halves(examples: Sequence[Example]) -> list[str]:
    lengths = np.array([len(example.content) for example in examples])
    places = lengths.argsort(kind="stable").argsort(kind="stable")
    return ["long" if place * 2 >= len(examples) else "short" for place in places.tolist()]


def word_numbers(chunks: Sequence[Any]) -> Iterator[tuple[Sequence[int | None], bool]]:
    """Of every sentence which word each token is from (None: a special token), and whether it was cut."""
    for chunk in chunks:
        for encoding in chunk.encodings:
            yield encoding.word_ids, bool(encoding.overflowing)


def _wrong(example: Example) -> str:
    words, tags = example.content, example.label
    if isinstance(words, str) or isinstance(tags, str):
        return "its words or tags are one text, not one per word"
    if not words:
        return "it has no words"
    return f"it has {len(words)} words and {len(tags)} tags" if len(words) != len(tags) else unwritable(words)


def _unmet(examples: Sequence[Example], splits: Sequence[Split]) -> Iterator[str]:
    """A remark on tags that training never meets; DataError where the source itself made the parts."""
    met = {tag for i in splits[0].indices for tag in flat(examples[i].label)}
    for name, split in zip(NAMES[1:], splits[1:], strict=True):
        alien = sorted({tag for i in split.indices for tag in flat(examples[i].label)} - met)
        if not alien:
            continue
        told = f"tags {', '.join(map(repr, alien[:_SHOWN]))} are in the {name} split and not in training"
        if any(example.part for example in examples):
            raise DataError(
                clean(f"The {told}. Fix: correct these tags, or add sentences with them for training")
            )
        yield told


def _sealed(split: Split, examples: Sequence[Example]) -> Split:
    """`split` with a fingerprint over the tags too."""
    total = hashlib.sha256(split.fingerprint.encode())
    for i in split.indices:
        total.update(repr(examples[i].label).encode())
    return replace(split, fingerprint=total.hexdigest())


def _contradictions(examples: Sequence[Example], digests: Sequence[bytes]) -> int:
    tagged = {(key, example.label) for key, example in zip(digests, examples, strict=True)}
    return sum(count > 1 for count in Counter(key for key, _ in tagged).values())


def _counted(aligned: Aligned, most: int) -> Iterator[str]:
    if aligned.beyond:
        yield f"{aligned.beyond} words lie beyond {most} tokens: they are neither learnt nor scored"
    if aligned.vanished:
        yield f"{aligned.vanished} words make no token in this tokenizer: they are neither learnt nor scored"
