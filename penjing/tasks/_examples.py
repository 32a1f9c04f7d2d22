"""Labelled pictures as a source gives them, before any is decoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from penjing.core import DataError

Picture = Path | bytes | np.ndarray


class Example(NamedTuple):
    """A picture (a file, an encoded file's bytes, or grey pixels [h, w] of uint8), its label, its name.

    `part` is the split that the source itself names for it ('train', 'test', ...), or None.
    """

    picture: Picture
    label: str
    name: str
    part: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What one source holds: `labels` are the classes in order; `augmentation` is the policy that suits."""

    name: str
    source: str
    licence: str
    examples: Sequence[Example]
    labels: tuple[str, ...]
    augmentation: str = "standard"
    splits: tuple[int, int, int] | None = None


def ordered_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, as numbers where all are whole numbers, otherwise by code point."""
    distinct = set(labels)
    if all(label.removeprefix("-").isdecimal() for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def gather(name: str, source: str, examples: Sequence[Example], empty: str) -> Examples:
    """Examples of a user's own data; raises DataError with `empty` when there are none."""
    if not examples:
        raise DataError(empty)
    labels = ordered_labels(example.label for example in examples)
    return Examples(name=name, source=source, licence="unknown", examples=tuple(examples), labels=labels)
