"""Labelled texts in three splits, as batches of tokens."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from penjing.core import DataError, Texts, UsageError, clean
from penjing.tasks._buckets import bucketed_batches, by_length, in_batches, typical
from penjing.tasks._examples import Example, Examples
from penjing.tasks._prepare import Options, one_label, split_up
from penjing.tasks._ragged import UNCOUNTED, Ragged
from penjing.tasks._splits import NAMES, Split, contradictions
from penjing.tasks._tokenizer import Tokens, blank, encoded, load_tokenizer, room, tokens_of

TextBatch = tuple[dict[str, Tensor], Tensor]
SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextData:
    """Texts as token ids, split and ready to be drawn.

    `train` also serves to calibrate; `selection` chooses epochs and candidates; `certification` is touched by nothing
    else. `answers` are the class of each text, or a tag number per token (-100 where none counts). `names` calls every
    example by its row; `bad` lists the texts left out, with the reason. `duplicates` counts examples whose content
    others have too; `contradictions` the different contents that stand under two classes or more.
    """

    name: str
    source: str
    licence: str
    labels: tuple[str, ...]
    train: Split
    selection: Split
    certification: Split
    reads: Texts
    names: tuple[str, ...]
    bad: tuple[str, ...]
    duplicates: int
    contradictions: int
    said: tuple[str, ...]
    answers: Tensor | Ragged
    tokens: Tokens

    def split(self, name: str) -> Split:
        """The split called `name`; raises UsageError for another word."""
        if name not in NAMES:
            raise UsageError(f"Unknown split {name!r}. Fix: choose one of {', '.join(NAMES)}")
        return getattr(self, name)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What people should know about these texts, a sentence each."""
        said = list(self.said)
        if self.bad:
            said.append(f"{len(self.bad)} texts are left out, the first: {self.bad[0]}")
        if self.duplicates:
            said.append(f"{self.duplicates} texts are copies of others; no copy is in two splits")
        if self.contradictions:
            said.append(f"{self.contradictions} texts appear under more than one label; check their labels")
        return tuple(said)

    @property
    def size(self) -> tuple[int]:
        """The number of tokens that three quarters of the texts do not exceed, rounded up to 8."""
        return (min(typical(self.tokens.ids.lengths), self.reads.max_length),)

    def n(self, split: str) -> int:
        """The number of examples in `split`."""
        return len(self.split(split))

    def targets(self, split: str) -> Tensor:
        """Class numbers [n], or tag numbers [n, tokens], of `split` in its fixed order."""
        return self._answers(self.split(split).indices)

    def example(self, batch_size: int) -> dict[str, Tensor]:
        """The network's arguments for `batch_size` random texts of the usual length (`size`), always the same."""
        return self.tokens.example(batch_size, self.size[0])

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
    ) -> Iterator[TextBatch]:
        """Batches of (the network's arguments, answers) of `split`, each padded to its longest text.

        `shuffle` orders by (seed, epoch), with texts of similar length together. `limit` takes the split's first
        examples, which are a random sample of it. A last batch of one joins the one before it. There is no
        augmentation of texts: `augment` may be True or "none", and changes nothing.
        """
        check_augmentation(augment)
        indices = self._limited(split, batch_size, limit)
        if shuffle:
            return map(
                self._batch, bucketed_batches(indices, self.tokens.ids.lengths, batch_size, seed, epoch)
            )
        return map(self._batch, in_batches(indices, batch_size))

    def bucketed(
        self, split: str, batch_size: int, limit: int | None = None
    ) -> tuple[Tensor, Iterator[TextBatch]]:
        """(order, batches): `split` from its shortest text to its longest, with the least padding. The i-th example
        served is at place order[i] of the split.
        """
        indices = self._limited(split, batch_size, limit)
        order = by_length(indices, self.tokens.ids.lengths)
        served = [indices[i] for i in order.tolist()]
        return torch.from_numpy(order), map(self._batch, in_batches(served, batch_size))

    def _limited(self, split: str, batch_size: int, limit: int | None) -> tuple[int, ...]:
        if batch_size < 1 or (limit is not None and limit < 1):
            raise UsageError(
                f"batch_size {batch_size} and limit {limit} must be at least 1. Fix: give larger numbers"
            )
        return self.split(split).indices[:limit]

    def _batch(self, indices: Sequence[int]) -> TextBatch:
        return self.tokens.batch(indices), self._answers(indices)

    def _answers(self, indices: Sequence[int]) -> Tensor:
        if isinstance(self.answers, Ragged):
            return self.answers.padded(indices, UNCOUNTED, self.tokens.left)
        return self.answers[torch.tensor(indices, dtype=torch.int64)]


def text_data_of(found: Examples, reads: Texts, options: Options) -> TextData:
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
    number = {label: n for n, label in enumerate(found.labels)}
    targets = np.array([number[one_label(example)] for example in kept], dtype=np.int64)
    digests = [digest(example.content) for example in kept]
    train, selection, certification = split_up(found, kept, digests, targets, options)
    cuts = _counted(truncated, reads.max_length, blank(tokens, tokenizer), len(kept))
    return TextData(
        name=found.name,
        source=found.source,
        licence=found.licence,
        labels=found.labels,
        train=train,
        selection=selection,
        certification=certification,
        reads=reads,
        names=tuple(example.name for example in kept),
        bad=bad,
        duplicates=len(digests) - len(set(digests)),
        contradictions=contradictions(digests, targets),
        said=(*found.remarks, *room(tokenizer, reads), *cuts),
        answers=torch.from_numpy(targets),
        tokens=tokens,
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
