"""Metrics that are functions of sums over examples, so that a resample of the examples is a product with their counts.

Each example has a row of what it adds to the sums; alike examples share one row and are counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penjing.certify._certify import as_array
from penjing.core import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Of `counts` [d] examples each (or groups of examples that belong together) what they add to the sums of the
    reference and of the candidate, float64 [d, k]; `value` maps sums [..., k] to the metric [...], `harmed` rows to
    those with one more mistake.
    """

    metric: str
    larger_is_better: bool
    reference: np.ndarray
    candidate: np.ndarray
    counts: np.ndarray
    examples: int
    clusters: int | None
    value: Callable[[np.ndarray], np.ndarray]
    harmed: Callable[[np.ndarray], np.ndarray]

    @property
    def n(self) -> int:
        """What is drawn with replacement: examples, or clusters."""
        return int(self.counts.sum())

    def values(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The metric of both, [...], where each row is there `weights` [..., d] times."""
        return self.value(weights @ self.reference), self.value(weights @ self.candidate)

    def with_harm(self) -> "Sums":
        """One example more, spread over all: one that the reference answers as it did, and the candidate with a mistake
        more. Where few examples differ, resamples of them alone know too little of what might.
        """
        return replace(
            self,
            reference=np.concatenate([self.reference, self.reference]),
            candidate=np.concatenate([self.candidate, self.harmed(self.reference)]),
            counts=np.concatenate([self.counts, self.counts / self.counts.sum()]),
        )

    def loss(self, weights: np.ndarray) -> np.ndarray:
        """How much worse the candidate is, [...]."""
        reference, candidate = self.values(weights)
        return (reference - candidate) * (1 if self.larger_is_better else -1)


def recall_sums(labels: Any, reference: Any, candidate: Any, clusters: Sequence[Any] | None = None) -> Sums:
    """For macro recall, the mean over the classes met of the share of their examples answered rightly.

    `labels`, `reference` and `candidate` are class numbers [n].
    """
    truth, left, right = (_numbers(values, name) for values, name in _named(labels, reference, candidate))
    classes = np.unique(truth)
    own = truth[:, None] == classes
    parts = [np.concatenate([own & (answer == truth)[:, None], own], 1) for answer in (left, right)]
    return _sums("macro_recall", True, (parts[0], parts[1]), _mean_recall, _one_less, clusters)


def f1_sums(labels: Any, reference: Any, candidate: Any, clusters: Sequence[Any] | None = None) -> Sums:
    """For macro F1, the mean over the classes met of 2 tp / (2 tp + fp + fn); class numbers [n]."""
    truth, left, right = (_numbers(values, name) for values, name in _named(labels, reference, candidate))
    classes = np.unique(truth)
    own = truth[:, None] == classes
    parts = []
    for answer in (left, right):
        told = answer[:, None] == classes
        parts.append(np.concatenate([own & told, own.astype(np.int64) + told], 1))
    return _sums("macro_f1", True, (parts[0], parts[1]), _mean_f1, _one_less, clusters)


def ratio_sums(
    metric: str,
    reference: Any,
    candidate: Any,
    *,
    larger_is_better: bool,
    clusters: Sequence[Any] | None = None,
) -> Sums:
    """For a metric that is a ratio of two sums: what each example adds to both, [n, 2]. A word error rate's are
    (errors, words), those of the F1 of entities (2 found rightly, found + there).
    """
    left, right = (_tallies(metric, values) for values in (reference, candidate))
    if left.shape != right.shape or left.ndim != 2 or left.shape[1] != 2 or not len(left):
        raise UsageError(
            f"{metric}: the sums have shapes {left.shape} and {right.shape}, not [n, 2] with n > 0 for both. "
            "Fix: give both networks' counts of the same examples"
        )
    if not larger_is_better and (left[:, 1] != right[:, 1]).any():
        at = int(np.flatnonzero(left[:, 1] != right[:, 1])[0])
        raise UsageError(
            f"{metric}: example {at} has {left[at, 1]:g} places in the reference, {right[at, 1]:g} in the candidate: "
            "an error rate is of the same truth. Fix: give both networks' counts of the same examples"
        )
    harmed = _less_found if larger_is_better else _one_more
    return _sums(metric, larger_is_better, (left, right), _ratio, harmed, clusters)


def _tallies(metric: str, values: Any) -> np.ndarray:
    """Counts as float64; raises UsageError for what cannot be counts."""
    found = as_array(values, metric)
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all() or (found < 0).any():
        raise UsageError(
            f"{metric}: sums are finite counts of 0 or more, and these hold others ({found.dtype})"
        )
    if found.ndim == 2 and found.shape[1:] == (2,) and len(found) and not found[:, 1].any():
        raise UsageError(f"{metric}: all examples have 0 below the line: there is nothing to measure")
    return found.astype(np.float64)


def _sums(
    metric: str,
    larger: bool,
    both: tuple[np.ndarray, np.ndarray],
    value: Callable[[np.ndarray], np.ndarray],
    harmed: Callable[[np.ndarray], np.ndarray],
    clusters: Sequence[Any] | None,
) -> Sums:
    n, k = both[0].shape
    rows = np.concatenate(both, 1).astype(np.float64)
    if clusters is not None:
        if len(clusters) != n:
            raise UsageError(f"clusters names {len(clusters)} groups for {n} examples. Fix: one per example")
        named, at = np.unique(np.asarray(clusters).astype(str), return_inverse=True)
        together = np.zeros((len(named), 2 * k))
        np.add.at(together, at, rows)
        rows = together
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    return Sums(
        metric=metric,
        larger_is_better=larger,
        reference=distinct[:, :k],
        candidate=distinct[:, k:],
        counts=counts.astype(np.float64),
        examples=n,
        clusters=None if clusters is None else len(rows),
        value=value,
        harmed=harmed,
    )


def _one_less(rows: np.ndarray) -> np.ndarray:
    """One answered rightly less, of the class that has most, in rows (right, ...)."""
    found, classes = rows.copy(), np.arange(len(rows))
    most = rows[:, : rows.shape[1] // 2].argmax(1)
    found[classes, most] = np.maximum(found[classes, most] - 1, 0)
    return found


def _one_more(rows: np.ndarray) -> np.ndarray:
    """One error more, in rows (errors, words)."""
    return rows + np.array([1.0, 0.0])


def _less_found(rows: np.ndarray) -> np.ndarray:
    """One found less, in rows (2 found rightly, found + there)."""
    return np.maximum(rows - np.array([2.0, 1.0]) * (rows[:, :1] >= 2), 0)


def _mean_recall(sums: np.ndarray) -> np.ndarray:
    right, there = np.split(sums, 2, -1)
    return _mean_where(right, there, there > 0)


def _mean_f1(sums: np.ndarray) -> np.ndarray:
    right, either = np.split(sums, 2, -1)
    return _mean_where(2 * right, either, either > 0)


def _mean_where(above: np.ndarray, below: np.ndarray, met: np.ndarray) -> np.ndarray:
    shares = np.divide(above, below, out=np.zeros_like(above), where=met)
    return shares.sum(-1) / np.maximum(met.sum(-1), 1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    above, below = sums[..., 0], sums[..., 1]
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _named(labels: Any, reference: Any, candidate: Any) -> tuple[tuple[Any, str], ...]:
    found = ((labels, "labels"), (reference, "reference"), (candidate, "candidate"))
    sizes = {name: len(values) for values, name in found}
    if len(set(sizes.values())) > 1 or not len(labels):
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UsageError(
            f"the test is paired, and the numbers of examples differ or are 0: {told}. "
            "Fix: give labels and both networks' answers for the same examples in the same order"
        )
    return found


def _numbers(values: Any, name: str) -> np.ndarray:
    found = as_array(values, name)
    if found.ndim != 1 or found.dtype.kind not in "iub":
        raise UsageError(
            f"{name} has shape {found.shape} and {found.dtype}: it holds class numbers, integers [n]"
        )
    return found.astype(np.int64)
