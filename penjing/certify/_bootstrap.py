"""Paired non-inferiority of metrics that are no accuracy: the bias-corrected and accelerated bootstrap."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from penjing.certify._certify import ENOUGH, check_limits, confidence, told_points
from penjing.certify._normal import normal_cdf, normal_quantile
from penjing.certify._sums import Sums
from penjing.core import Certificate, UsageError, Verdict

RESAMPLES = 10_000
CELLS = 4_000_000  # of a part of the resamples
FEWEST = 20  # examples, or groups of them: resamples of fewer say too little of others
TIED = 1e-12  # losses that are nearer are one


def certify_metric(
    sums: Sums,
    margin: float,
    alpha: float = 0.05,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    data_fingerprint: str | None = None,
    file_fingerprint: str | None = None,
) -> Certificate:
    """Whether the candidate's metric is shown to be worse than the reference's by less than `margin`, in its own units
    (0.01 of F1, of a word error rate).

    Paired bootstrap: examples (clusters where given: speakers, documents) are drawn with replacement, both networks'
    answers together. Certified where the upper end of the one-sided BCa interval (Efron, "Better bootstrap confidence
    intervals", JASA 82, 1987, equations 2.3 and 6.6) of the loss is below the margin. Its size is about `alpha`, not
    at most alpha as that of `certify`; see benchmarks/certificate.md. The power is of a normal law with the spread of
    the resamples.
    """
    margin, alpha = check_limits(margin, alpha)
    if resamples < 100:
        raise UsageError(f"resamples is {resamples}: tails need 1000 or more. Fix: leave it at {RESAMPLES}")
    if seed < 0:
        raise UsageError(f"seed is {seed}. Fix: 0 or a larger whole number")
    found = bounds(sums, alpha, resamples=resamples, seed=seed)
    reference, candidate = (float(value[()]) for value in sums.values(sums.counts))
    strength, needed = _forecast(found.spread, sums.n, margin, alpha)
    verdict, why = _verdict(sums, found, margin, alpha, strength, needed)
    return Certificate(
        verdict=verdict,
        test=f"paired BCa bootstrap, {resamples} resamples",
        metric=sums.metric,
        larger_is_better=sums.larger_is_better,
        n=sums.examples,
        clusters=sums.clusters,
        reference=reference,
        candidate=candidate,
        margin=margin,
        alpha=alpha,
        bound=found.upper,
        power=strength,
        examples_needed=needed and math.ceil(needed * sums.examples / sums.n),
        why=why,
        data_fingerprint=data_fingerprint,
        file_fingerprint=file_fingerprint,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much worse the candidate is, at least and at most, each at confidence 1 - alpha; the spread of resamples."""

    lower: float
    upper: float
    spread: float


def bounds(sums: Sums, alpha: float = 0.05, *, resamples: int = RESAMPLES, seed: int = 0) -> Bounds:
    """One-sided BCa bounds of the loss. The upper one is of the examples and one more that the candidate alone gets
    wrong: where few answers differ, resamples of these alone say too little about what others might do.
    """
    upper, spread = _end(sums.with_harm(), 1 - alpha, resamples, seed)
    lower, _ = _end(sums, alpha, resamples, seed)
    return Bounds(lower=lower, upper=upper, spread=spread)


def _end(sums: Sums, p: float, resamples: int, seed: int) -> tuple[float, float]:
    """The BCa interval's end at confidence p, and the standard deviation of the resamples."""
    loss = float(sums.loss(sums.counts))
    drawn = np.sort(np.concatenate([sums.loss(part) for part in _resampled(sums, resamples, seed)]))
    below = (np.searchsorted(drawn, loss - TIED) + np.searchsorted(drawn, loss + TIED)) / 2 / len(drawn)
    bias = normal_quantile(min(max(below, 1e-6), 1 - 1e-6))
    z = bias + normal_quantile(p)
    at = normal_cdf(bias + z / max(1 - _acceleration(sums) * z, 1e-6))
    return float(drawn[min(len(drawn), max(1, math.ceil(at * len(drawn)))) - 1]), float(drawn.std())


def _resampled(sums: Sums, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row is drawn, [part, d] at a time."""
    random, shares = np.random.default_rng(seed), sums.counts / sums.counts.sum()
    part = max(1, CELLS // (len(shares) * 2))
    for start in range(0, resamples, part):
        yield random.multinomial(sums.n, shares, size=min(part, resamples - start)).astype(np.float64)


def _acceleration(sums: Sums) -> float:
    """The skewness of the jackknife, over 6 (Efron 1987, equation 6.6)."""
    alone = []
    for start in range(0, len(sums.counts), part := max(1, CELLS // len(sums.counts))):
        rows = np.arange(start, min(start + part, len(sums.counts)))
        weights = np.repeat(sums.counts[None], len(rows), 0)
        weights[np.arange(len(rows)), rows] -= np.minimum(sums.counts[rows], 1)
        alone.append(sums.loss(weights))
    left = np.concatenate(alone)
    apart = float(np.average(left, weights=sums.counts)) - left
    square = float((sums.counts * apart**2).sum())
    return float((sums.counts * apart**3).sum()) / (6 * square**1.5) if square > 0 else 0.0


def _forecast(spread: float, n: int, margin: float, alpha: float) -> tuple[float, int | None]:
    """The power for a candidate exactly as good, and how many examples 80% of it take, if the loss is about normal."""
    z = normal_quantile(1 - alpha)
    if spread <= 0:
        return 1.0, 1
    needed = n * ((z + normal_quantile(ENOUGH)) * spread / margin) ** 2 if margin > 0 else None
    return normal_cdf(margin / spread - z), None if needed is None else math.ceil(needed)


def _verdict(
    sums: Sums, found: Bounds, margin: float, alpha: float, strength: float, needed: int | None
) -> tuple[Verdict, str]:
    if sums.n < FEWEST:
        of = "examples" if sums.clusters is None else "groups of examples"
        return "cannot certify", f"{sums.n} {of} are too few to resample: {FEWEST} or more would do"
    within, sure = told_points(margin), confidence(alpha)
    if found.upper < margin:
        return (
            "certified",
            f"it loses at most {100 * found.upper:.2f} points {sure}, which is within {within}",
        )
    if found.lower > margin:
        return (
            "not certified",
            f"it loses {100 * found.lower:.2f} points or more {sure}, which is beyond {within}",
        )
    if strength >= ENOUGH:
        return (
            "not certified",
            f"it may lose up to {100 * found.upper:.2f} points {sure}, which is beyond {within}",
        )
    of = "examples" if sums.clusters is None else f"examples in {sums.clusters} groups"
    return "cannot certify", (
        f"{sums.examples} {of} are too few: a network as good as the reference is shown to be within {within} with "
        f"{strength:.0%} probability only; {needed or 'more than can be asked for'} would do for {ENOUGH:.0%}"
    )
