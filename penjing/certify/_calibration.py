"""How far a classifier's confidence can be taken at its word. Shapes: logits [n, classes], targets [n]."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from penjing.certify._certify import as_array
from penjing.core import UsageError

BINS = 15
COLDEST, HOTTEST = 0.02, 50.0  # temperatures looked at
HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """`nll`, the mean of -log p of the right class in nats; `brier`, the mean squared distance of the probabilities
    to the truth (Brier, Monthly Weather Review 1950; 0 to 2); `ece`, the mean distance of confidence and accuracy
    over 15 equal bins of confidence (Naeini et al., AAAI 2015), a fraction.

    None of them is accuracy: a network that answers every class with its frequency is calibrated. ECE depends on the
    bins and looks at the first answer alone; it is above 0 for any finite number of examples.
    """

    nll: float
    brier: float
    ece: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def calibration(logits: Any, targets: Any, temperature: float = 1.0) -> Calibration:
    """Of softmax(logits / temperature). Raises UsageError for what are no logits, classes or temperature.

    >>> found = calibration([[9.0, 0.0], [0.0, 9.0]], [0, 1])
    >>> (round(found.nll, 4), round(found.brier, 4), round(found.ece, 4))
    (0.0001, 0.0, 0.0001)
    """
    given, truth = _checked(logits, targets)
    if not 0 < temperature < np.inf:
        raise UsageError(f"temperature is {temperature!r}. Fix: a finite number above 0")
    logs = _log_softmax(given / temperature)
    chances = np.exp(logs)
    own = np.arange(len(truth))
    sure, right = chances.max(1), chances.argmax(1) == truth
    missed = chances.copy()
    missed[own, truth] -= 1
    return Calibration(
        nll=float(-logs[own, truth].mean()), brier=float((missed**2).sum(1).mean()), ece=_ece(sure, right)
    )


def temperature(logits: Any, targets: Any) -> float:
    """The temperature T > 0 that makes the NLL of softmax(logits / T) least (Guo et al., "On calibration of modern
    neural networks", ICML 2017), by bisection of its slope in 1 / T, which is convex.

    Fit it on examples that nothing else is judged on: on these very examples it flatters.
    """
    given, truth = _checked(logits, targets)
    own = given[np.arange(len(truth)), truth]

    def slope(inverse: float) -> float:
        return float((np.exp(_log_softmax(given * inverse)) * given).sum(1).mean() - own.mean())

    low, high = 1 / HOTTEST, 1 / COLDEST
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / (low * high) ** 0.5


def _ece(sure: np.ndarray, right: np.ndarray) -> float:
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    apart = np.bincount(bins, weights=right.astype(float) - sure, minlength=BINS)
    return float(np.abs(apart).sum() / len(sure))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    above = logits - logits.max(1, keepdims=True)
    return above - np.log(np.exp(above).sum(1, keepdims=True))


def _checked(logits: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    given, truth = as_array(logits, "logits"), as_array(targets, "targets")
    if given.dtype.kind not in "iuf":
        raise UsageError(f"calibration needs logits that are numbers; got {given.dtype}")
    given = given.astype(np.float64)
    if given.ndim != 2 or truth.shape != given.shape[:1] or not len(truth) or truth.dtype.kind not in "iu":
        raise UsageError(
            f"calibration needs logits [n, classes] and class numbers [n] with n > 0; got {given.shape} and "
            f"{truth.shape}"
        )
    if not np.isfinite(given).all():
        raise UsageError("calibration needs finite logits; some are infinite or no number")
    if truth.min() < 0 or truth.max() >= given.shape[1]:
        raise UsageError(
            f"targets reach from {truth.min()} to {truth.max()}, and the logits are of {given.shape[1]} classes. "
            "Fix: class numbers from 0"
        )
    return given, truth
