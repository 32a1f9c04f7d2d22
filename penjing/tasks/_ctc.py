"""Transcripts as labels of connectionist temporal classification, and answers read from its logits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

UNCOUNTED = -100  # a place in a row of labels that does not count


class Spoken(NamedTuple):
    """What was said in each clip of a batch.

    `labels` [b, L] of int64, padded with -100; `lengths` [b] of int64, labels per row; `share` [b] of float32, the
    part of the time axis that is the clip's own.
    """

    labels: Tensor
    lengths: Tensor
    share: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Alphabet:
    """The symbols that the network's outputs stand for, in order; `blank` is the number of the one that says nothing.

    Symbols of more than one character (<s>, <unk>) take a place and are never spoken.
    """

    symbols: tuple[str, ...]
    blank: int = 0

    def encoded(self, transcript: str) -> tuple[int, ...]:
        """Raises KeyError for a character that is not in the alphabet."""
        number = self._numbers()
        return tuple(number[character] for character in transcript)

    def spelt(self, numbers: Sequence[int]) -> str:
        """Numbers without blanks and repeats as a transcript, words apart by one space."""
        return " ".join("".join(s for s in (self.symbols[n] for n in numbers) if len(s) == 1).split())

    def missing(self, transcripts: Sequence[str]) -> Counter[str]:
        """The characters that the alphabet lacks, and how often each stands in the transcripts."""
        number = self._numbers()
        return Counter(c for text in transcripts for c in text if c not in number)

    def _numbers(self) -> dict[str, int]:
        return {s: n for n, s in enumerate(self.symbols) if len(s) == 1 and n != self.blank}


@dataclass(frozen=True, slots=True, eq=False)
class Transcripts:
    """The labels of every clip, by number."""

    labels: Sequence[tuple[int, ...]]

    def spoken(self, indices: Sequence[int], share: Tensor) -> Spoken:
        rows = [torch.tensor(self.labels[i], dtype=torch.int64) for i in indices]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=UNCOUNTED)
        return Spoken(padded, lengths, share)
