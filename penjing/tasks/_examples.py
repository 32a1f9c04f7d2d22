"""Labelled examples as a source gives them, before any is decoded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from penjing.core import DataError

Picture = Path | bytes | np.ndarray


class Example(NamedTuple):
    """A picture, a clip or a text, its label and its name.

    `content` is a file, an encoded file's bytes, grey pixels [h, w] of uint8, samples [n] of float32 (whose `rate` is
    in Hz), one text, or several: a pair of texts, the words of a sentence. `label` is a class, a tag per word, or a
    transcript. `part` is the split that the source itself names for it ('train', 'test', ...), or None. Examples of
    one `group` (a voice, a syllable) never go to different splits.
    """

    content: Any
    label: str | tuple[str, ...]
    name: str
    part: str | None = None
    group: str | None = None
    rate: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """What one source holds.

    `labels` are the classes in order; `augmentation` is the policy that suits; `tasks` are those it was made for;
    `remarks` are what people should know, a sentence each.
    """

    name: str
    source: str
    licence: str
    examples: Sequence[Example]
    labels: tuple[str, ...]
    augmentation: str = "standard"
    splits: tuple[int, int, int] | None = None
    tasks: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def flat(label: str | tuple[str, ...]) -> tuple[str, ...]:
    """The classes in a label: one, or those of every word."""
    return (label,) if isinstance(label, str) else label


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
    labels = ordered_labels(label for example in examples for label in flat(example.label))
    return Examples(name=name, source=source, licence="unknown", examples=tuple(examples), labels=labels)
