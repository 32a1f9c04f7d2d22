"""A certificate from two networks' answers to the same examples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from penjing.certify import (
    Flips,
    Parts,
    borne,
    certify,
    certify_metric,
    confidence,
    flips,
    ratio_sums,
    recall_sums,
    worst_parts,
)
from penjing.core import Certificate, CertifyOptions, Reads
from penjing.pipeline._figures import SPLIT, same
from penjing.tasks import LabelledData, Task, headline, quarters, traits_of

BATCH = 256
SENTENCES = "whole answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be certified: the data and its answers (as `recover.evaluate` gives them), and within which margin."""

    task: Task
    data: LabelledData
    reads: Reads
    reference: Mapping[str, Any]
    candidate: Mapping[str, Any]
    margin: float
    options: CertifyOptions
    seed: int = 0

    @property
    def right(self) -> tuple[np.ndarray, np.ndarray]:
        """Per example whether each answered rightly (sequences: in every place), bool [n]."""
        truth = self.reference["targets"]
        left, right = (
            same(found["predictions"], truth).numpy() for found in (self.reference, self.candidate)
        )
        return left, right

    @property
    def clusters(self) -> list[str] | None:
        """What each example belongs to, where the data tells and some belong together."""
        own = getattr(self.data, SPLIT).indices
        groups = [self.data.groups[i] for i in own]
        if all(group is None for group in groups):
            return None
        named = [f"group {group}" if group is not None else f"example {i}" for i, group in enumerate(groups)]
        return named if len(set(named)) < len(named) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The certificate with all that bears on it: other metrics, the worst parts, how many answers changed, and how
    many examples are copies of others.
    """

    certificate: Certificate
    also: tuple[Certificate, ...]
    classes: Parts | None
    slices: Parts | None
    flips: Flips
    copies: int

    def to_dict(self) -> dict[str, Any]:
        parts = {
            name: part and part.to_dict()
            for name, part in (("classes", self.classes), ("slices", self.slices))
        }
        also = [one.to_dict() for one in self.also]
        more = {"also": also, **parts, "flips": self.flips.to_dict(), "copies": self.copies}
        return {**self.certificate.to_dict(), **more}


def prove(asked: Asked, *, data_fingerprint: str, file_fingerprint: str) -> Proof:
    """The verdict on the task's headline metric; certified only where no class or slice is shown to be much worse.

    Where examples belong to groups, they are also drawn by group, and both tests have to agree. Macro recall comes
    after accuracy and is tested only where that is certified.
    """
    marks: dict[str, Any] = {"data_fingerprint": data_fingerprint, "file_fingerprint": file_fingerprint}
    first, also = _accuracy(asked, marks) if _classes(asked) else (_ratio(asked, marks), ())
    classes = _by_class(asked) if _classes(asked) else None
    slices = _slices(asked)
    left, right = asked.right
    changed = ~same(asked.reference["predictions"], asked.candidate["predictions"]).numpy()
    return Proof(
        certificate=_unless_harmed(first, classes, slices),
        also=also,
        classes=classes,
        slices=slices,
        flips=flips(changed, left, right),
        copies=asked.data.copies(SPLIT),
    )


def _classes(asked: Asked) -> bool:
    """Whether each example has one class."""
    return isinstance(asked.reference["targets"], Tensor) and headline(asked.task)[0] == "accuracy"


def _accuracy(asked: Asked, marks: Mapping[str, Any]) -> tuple[Certificate, tuple[Certificate, ...]]:
    left, right = asked.right
    alpha, clusters = asked.options.alpha, asked.clusters
    found, also = certify(left, right, asked.margin, alpha, **marks), list[Certificate]()
    if clusters is not None:
        rows = [np.stack([one.astype(float), np.ones(len(one))], 1) for one in (left, right)]
        sums = ratio_sums("accuracy", rows[0], rows[1], larger_is_better=True, clusters=clusters)
        grouped = _resampled(asked, sums, marks)
        also.append(grouped)
        if found.certified and not grouped.certified:
            found = replace(found, verdict=grouped.verdict, why=f"by groups of examples, {grouped.why}")
    if found.certified:
        told = [np.asarray(answers["predictions"]) for answers in (asked.reference, asked.candidate)]
        also.append(
            _resampled(asked, recall_sums(asked.reference["targets"], told[0], told[1], clusters), marks)
        )
    return found, tuple(also)


def _ratio(asked: Asked, marks: Mapping[str, Any]) -> Certificate:
    """Of the F1 of entities, or the word error rate."""
    task: Any = asked.task
    name, larger = headline(asked.task)
    truth = asked.reference["targets"]
    rows = [task.tallies(found["predictions"], truth) for found in (asked.reference, asked.candidate)]
    sums = ratio_sums(name, rows[0], rows[1], larger_is_better=larger, clusters=asked.clusters)
    return _resampled(asked, sums, marks)


def _resampled(asked: Asked, sums: Any, marks: Mapping[str, Any]) -> Certificate:
    options = asked.options
    return certify_metric(
        sums, asked.margin, options.alpha, resamples=options.resamples, seed=asked.seed, **marks
    )


def _by_class(asked: Asked) -> Parts:
    labels = np.asarray(asked.data.labels)[np.asarray(asked.reference["targets"])]
    return worst_parts(*asked.right, labels, asked.options.part_margin / 100, asked.options.alpha)


def _slices(asked: Asked) -> Parts | None:
    batches = asked.data.batches(SPLIT, BATCH)
    found = quarters(traits_of((asked.task.inputs(batch) for batch in batches), asked.reads))
    if not found:
        return None
    return worst_parts(*asked.right, found, asked.options.part_margin / 100, asked.options.alpha)


def _unless_harmed(found: Certificate, classes: Parts | None, slices: Parts | None) -> Certificate:
    """The certificate, withdrawn where a part of the examples is shown to be much worse."""
    for what, parts in (("class", classes), ("slice", slices)):
        if parts is not None and parts.harmed:
            worst, more = parts.harmed[0], len(parts.harmed) - 1
            why = (
                f"the {what} {worst.name!r} loses {100 * worst.loss:.1f} points ({worst.reference:.1%} to "
                f"{worst.candidate:.1%} of {worst.n}), more than {100 * parts.margin:g} {confidence(parts.alpha)}"
                + (f"; and {more} more" if more else "")
            )
            return replace(found, verdict="not certified", why=why)
    return found


def forecast(n: int, margin: float, alpha: float) -> str:
    """Before anything is compressed: what these examples will be able to show."""
    most = borne(n, margin, alpha)
    within = f"{100 * margin:g} point{'' if margin == 0.01 else 's'}"
    if most is None:
        return (
            f"{n} certification examples are too few to show any network to be within {within}: "
            "the verdict will be 'cannot certify'. Give more of them, or a wider margin"
        )
    return (
        f"{n} certification examples show a network as good as the reference to be within {within} with 80% "
        f"probability if the two disagree on no more than {most:.1%} of them"
    )
