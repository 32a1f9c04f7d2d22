"""From examples to data: the options that all kinds take, and the splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from penjing.core import DataError
from penjing.tasks._examples import Example, Examples
from penjing.tasks._splits import Split, ToSplit, make_splits

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How examples become data.

    `splits` are counts or fractions of (train, selection, certification); each gets `per_class_min` of every class.
    `skip_bad` leaves out what cannot be read and lists it. `augmentation` names the policy for training. `max_length`
    (tokens) and `max_seconds` cut and refuse what is longer. `alphabet` are the characters of transcripts, or all
    symbols in order; `own_alphabet` the symbols that the network was trained with.
    """

    seed: int = 0
    splits: Sequence[float] | None = None
    skip_bad: bool = False
    per_class_min: int = 1
    augmentation: str | None = None
    cache_bytes: int = 4 * GIB
    threads: int | None = None
    max_length: int | None = None
    max_seconds: float | None = None
    alphabet: str | tuple[str, ...] | None = None
    own_alphabet: tuple[str, ...] = ()


def split_up(
    found: Examples, kept: Sequence[Example], digests: Sequence[bytes], targets: np.ndarray, options: Options
) -> tuple[Split, Split, Split]:
    """`kept` examples of `found` in splits by class, group and content: see `make_splits`."""
    labelled = ToSplit(
        digests=digests,
        targets=targets,
        labels=found.labels,
        parts=[example.part for example in kept],
        groups=[example.group for example in kept],
    )
    shares = options.splits if options.splits is not None else found.splits
    return make_splits(labelled, seed=options.seed, shares=shares, minimum=options.per_class_min)


def one_label(example: Example) -> str:
    """The class of an example that has one; raises DataError where it has several."""
    if not isinstance(example.label, str):
        raise DataError(f"{example.name} has {len(example.label)} labels. Fix: give one class per example")
    return example.label
