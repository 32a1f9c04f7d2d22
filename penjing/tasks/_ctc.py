"""Transcripts as labels of connectionist temporal classification, and what is read from its log probabilities."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

UNCOUNTED = -100  # a place in a row of labels that does not count
NEVER = -math.inf
UNLIKELY = -20.0  # symbols that are e^20 times less probable than the likeliest of their frame are not tried
Prefix = tuple[int, ...]


class Spoken(NamedTuple):
    """What was said in each clip of a batch.

    `labels` [b, L] of int64, padded with -100; `lengths` [b] of int64, labels per row; `share` [b] of float32, the
    part of the time axis that is the clip's own.
    """

    labels: Tensor
    lengths: Tensor
    share: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Transcripts:
    """The labels of every clip, by number."""

    labels: Sequence[tuple[int, ...]]

    def spoken(self, indices: Sequence[int], share: Tensor) -> Spoken:
        rows = [torch.tensor(self.labels[i], dtype=torch.int64) for i in indices]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=UNCOUNTED)
        return Spoken(padded, lengths, share)


def frames_needed(labels: Sequence[int]) -> int:
    """The fewest frames that can spell `labels`: one each, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def greedy(frames: Tensor, blank: int) -> Prefix:
    """The likeliest path through `frames` [T, symbols], repeats merged, blanks dropped.

    Not always the likeliest spelling, which may have many paths: see `prefix_beam`.
    """
    path = torch.unique_consecutive(frames.argmax(-1)).tolist()
    return tuple(symbol for symbol in path if symbol != blank)


def prefix_beam(frames: Tensor, blank: int, width: int) -> Prefix:
    """The spelling whose paths through log probabilities `frames` [T, symbols] are together the likeliest, among the
    `width` best prefixes kept after every frame; no language model.

    Graves and Jaitly, Towards End-to-End Speech Recognition with Recurrent Neural Networks, ICML 2014, algorithm 1, as
    in Hannun et al., First-Pass Large Vocabulary Continuous Speech Recognition, 2014; in logarithms.
    """
    beam: dict[Prefix, tuple[float, float]] = {
        (): (0.0, NEVER)
    }  # log probability with a blank last, and without
    for row in frames.double().tolist():
        likely = max(row) + UNLIKELY
        spoken = [(symbol, p) for symbol, p in enumerate(row) if symbol != blank and p >= likely]
        grown = _grown(beam, row[blank], spoken)
        best = sorted(grown.items(), key=lambda item: (-_either(*item[1]), item[0]))
        beam = dict(best[:width])
    return next(iter(beam))


def _grown(
    beam: dict[Prefix, tuple[float, float]], silent: float, spoken: Sequence[tuple[int, float]]
) -> dict[Prefix, tuple[float, float]]:
    """Every prefix after one more frame."""
    grown: dict[Prefix, tuple[float, float]] = {}

    def add(prefix: Prefix, with_blank: float, without: float) -> None:
        old = grown.get(prefix, (NEVER, NEVER))
        grown[prefix] = (_either(old[0], with_blank), _either(old[1], without))

    for prefix, (with_blank, without) in beam.items():
        whole = _either(with_blank, without)
        add(prefix, whole + silent, NEVER)
        for symbol, p in spoken:
            if prefix and symbol == prefix[-1]:
                add(prefix, NEVER, without + p)
                add((*prefix, symbol), NEVER, with_blank + p)
            else:
                add((*prefix, symbol), NEVER, whole + p)
    return grown


def _either(a: float, b: float) -> float:
    """log(e^a + e^b)"""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == NEVER else high + math.log1p(math.exp(low - high))
