"""Labelled texts as batches of tokens."""

import hashlib
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.core import DataError, Texts, UsageError, clean
from penjing.tasks._buckets import bucketed_batches, by_length, typical
from penjing.tasks._examples import Example, Examples
from penjing.tasks._labelled import Labelled, class_numbers, labelled
from penjing.tasks._prepare import Options, one_label, split_up
from penjing.tasks._ragged import UNCOUNTED, Ragged
from penjing.tasks._splits import contradictions
from penjing.tasks._tokenizer import Tokens, blank, encoded, load_tokenizer, room, tokens_of

TextBatch = tuple[dict[str, Tensor], Tensor]
SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenRows:
    """The Contents of texts as token ids; `answers` are the class of each text, or a tag number per token (-100 where
    none counts). There is no augmentation of texts.
    """

    reads: Texts
    answers: Tensor | Ragged
    tokens: Tokens
    called: str = "texts"

    @property
    def size(self) -> tuple[int]:
        """The number of tokens that three quarters of the texts do not exceed, rounded up to 8."""
        return (min(typical(self.tokens.ids.lengths), self.reads.max_length),)

    def policy(self, augment: bool | str) -> None:
        check_augmentation(augment)

    def shuffled(self, indices: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        return bucketed_batches(indices, self.tokens.ids.lengths, batch_size, seed, epoch)

    def by_length(self, indices: Sequence[int]) -> np.ndarray:
        return by_length(indices, self.tokens.ids.lengths)

    def targets(self, indices: Sequence[int]) -> Tensor:
        """Class numbers [n], or tag numbers [n, tokens]."""
        if isinstance(self.answers, Ragged):
            return self.answers.padded(indices, UNCOUNTED, self.tokens.left)
        return self.answers[torch.tensor(indices, dtype=torch.int64)]

    def example(self, batch_size: int) -> dict[str, Tensor]:
        """The network's arguments for random texts of the usual length (`size`)."""
        return self.tokens.example(batch_size, self.size[0])

    def batch(self, indices: Sequence[int], policy: None, seed: int, epoch: int) -> TextBatch:
        """(the network's arguments, answers), padded to the longest text."""
        return self.tokens.batch(indices), self.targets(indices)


def text_data_of(found: Examples, reads: Texts, options: Options) -> Labelled[TokenRows]:
    """Labelled texts, or pairs of texts, as tokens of what a network `reads`, in splits as `make_splits` says.

    Texts longer than `options.max_length` tokens (by default what the network can read) are cut and counted in
    `remarks`. Equal texts never straddle splits. Raises DataError, UsageError.
    """
    reads = shortened(reads, options.max_length)
    check_augmentation(options.augmentation or False)
    kept, bad = kept_or_refused(found.examples, _wrong, options.skip_bad)
    tokenizer = load_tokenizer(reads)
    chunks, truncated = encoded(tokenizer, [example.content for example in kept], reads)
    tokens = tokens_of(tokenizer, chunks, reads)
    targets = class_numbers(found.labels, map(one_label, kept))
    digests = [digest(example.content) for example in kept]
    splits = split_up(found, kept, digests, targets, options)
    cuts = _counted(truncated, reads.max_length, blank(tokens, tokenizer), len(kept))
    return labelled(
        found,
        TokenRows(reads=reads, answers=torch.from_numpy(targets), tokens=tokens),
        kept,
        digests,
        [digest(without_spaces(example.content)) for example in kept],
        splits,
        bad=bad,
        contradictions=contradictions(digests, targets),
        said=(*room(tokenizer, reads), *cuts),
    )


def kept_or_refused(
    examples: Sequence[Example], wrong: Callable[[Example], str], skip_bad: bool
) -> tuple[list[Example], tuple[str, ...]]:
    """The examples of which `wrong` says nothing, and the others by name; DataError where there are others, unless
    `skip_bad`.
    """
    said = [wrong(example) for example in examples]
    bad = tuple(clean(f"{example.name}: {why}") for example, why in zip(examples, said, strict=True) if why)
    if bad and not skip_bad:
        more = f"\n  and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise DataError(
            f"Texts that cannot be used ({len(bad)}):\n  " + "\n  ".join(bad[:SHOWN]) + more + "\n"
            "Fix: correct or remove them, or leave them out with skip_bad=True (--skip-bad)"
        )
    kept = [example for example, why in zip(examples, said, strict=True) if not why]
    if not kept:
        raise DataError("No text is left. Fix: give texts that are not empty")
    return kept, bad


def check_augmentation(augment: bool | str) -> None:
    """Raises UsageError for an augmentation of texts, of which there is none."""
    if augment not in (True, False, "none"):
        raise UsageError(f"Unknown augmentation of texts {augment!r}. Fix: there is 'none' only")


def shortened(reads: Texts, max_length: int | None) -> Texts:
    """`reads` with at most `max_length` tokens; DataError for more than the network can read."""
    if max_length is None:
        return reads
    if not 4 <= max_length <= reads.max_length:
        raise DataError(
            f"max_length is {max_length}; this network reads at most {reads.max_length} tokens. "
            f"Fix: give a number from 4 to {reads.max_length}"
        )
    return replace(reads, max_length=max_length)


def digest(content: object) -> bytes:
    """sha256 of a text, two texts, or words: equal for equal contents alone."""
    return hashlib.sha256(repr(content).encode()).digest()


def without_spaces(content: Any) -> Any:
    """A text, or several, as tokenizers mostly see it: every stretch of white space is one space, none is outside.

    >>> without_spaces((" a  b", "c\\n"))
    ('a b', 'c')
    """
    if isinstance(content, str):
        return " ".join(unicodedata.normalize("NFC", content).split())
    return tuple(map(without_spaces, content))


def _wrong(example: Example) -> str:
    texts = example.content if isinstance(example.content, tuple) else (example.content,)
    if not all(isinstance(text, str) for text in texts):
        return "no text"
    return unwritable(texts) or ("" if all(text.strip() for text in texts) else "the text is empty")


def unwritable(texts: Sequence[str]) -> str:
    """Why no tokenizer can read `texts`: half a character, as JSON's "\\ud83d" alone is; "" where all are whole."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    return ""


def _counted(truncated: int, most: int, silent: int, total: int) -> Iterator[str]:
    if truncated:
        yield f"{truncated} of {total} texts are longer than {most} tokens and are cut there"
    if silent:
        yield f"{silent} of {total} texts hold no token that the tokenizer knows: the network cannot tell them apart"
