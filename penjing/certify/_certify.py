"""Whether a candidate's accuracy is worse than the reference's by less than a margin: certified, not, or cannot be
told."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from penjing.certify._tango import critical_values, examples_needed, power, score
from penjing.core import Certificate, UsageError

ENOUGH = 0.8  # the power below which nothing that was not shown counts as refuted
HALVINGS = 50


def certify(
    reference_correct: Any,
    candidate_correct: Any,
    margin: float = 0.01,
    alpha: float = 0.05,
    *,
    data_fingerprint: str | None = None,
    file_fingerprint: str | None = None,
) -> Certificate:
    """Whether the candidate's accuracy is shown to be less than `margin` (a fraction: 0.01 is one point) below the
    reference's.

    `reference_correct` and `candidate_correct` say of the same examples in the same order whether each answered
    rightly: bool [n], as arrays, tensors or lists. Paired non-inferiority by Tango's score test (Statistics in
    Medicine 17, 1998) with a critical value whose size is exact (`critical_values`): a candidate that is worse by the
    margin is certified with a probability of at most `alpha`, whatever n and whatever the two disagree on.

    Where that is not shown, the verdict is "not certified" if the candidate is shown to be worse by more than the
    margin, or if one as good as the reference would have been certified with a power of 80% at the disagreement seen;
    else "cannot certify", with the number of examples that power needs. That two accuracies do not differ
    significantly (McNemar's test) is no evidence that they are alike, and is not used.

    Raises UsageError for arrays that are not paired, hold anything but true and false, or are empty.

    >>> import numpy as np
    >>> right = np.arange(4000) % 10 > 0
    >>> certify(right, right).verdict
    'certified'
    >>> certify(right[:100], right[:100]).verdict
    'cannot certify'
    >>> certify(right, right & (np.arange(4000) % 25 > 0)).verdict
    'not certified'
    """
    reference, candidate = as_pair(reference_correct, candidate_correct)
    margin, alpha = check_limits(margin, alpha)
    b, c = int((reference & ~candidate).sum()), int((~reference & candidate).sum())
    n, found = len(reference), _judged(len(reference), b, c, margin, alpha)
    return Certificate(
        test="Tango's score test, exact critical value",
        metric="accuracy",
        n=n,
        b=b,
        c=c,
        reference=float(reference.mean()),
        candidate=float(candidate.mean()),
        margin=margin,
        alpha=alpha,
        data_fingerprint=data_fingerprint,
        file_fingerprint=file_fingerprint,
        **found,
    )


def check_limits(margin: float, alpha: float) -> tuple[float, float]:
    """Both as plain floats; raises UsageError for a margin or an alpha that no test has."""
    limits = _plain(margin, "margin"), _plain(alpha, "alpha")
    if not 0 <= limits[0] < 1:
        raise UsageError(
            f"margin is {margin!r}: it is a share of all examples, 0.01 for one point. Fix: give 0 or more, below 1"
        )
    if not 0.001 < limits[1] < 0.5:
        raise UsageError(
            f"alpha is {alpha!r}: it is the risk of a wrong certificate. Fix: 0.05, or above 0.001 below 0.5"
        )
    return limits


def _plain(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise UsageError(f"{name} is {value!r}, not a number. Fix: give one, as 0.05")
    return float(value)


def as_pair(reference: Any, candidate: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both as bool [n]; raises UsageError for anything that is not true or false, one per example and network."""
    left, right = as_correct(reference, "reference_correct"), as_correct(candidate, "candidate_correct")
    if len(left) != len(right):
        raise UsageError(
            f"reference_correct has {len(left)} examples and candidate_correct {len(right)}: the test is paired. "
            "Fix: give both networks' answers to the same examples in the same order"
        )
    return left, right


def as_correct(values: Any, name: str) -> np.ndarray:
    """`values` (an array, a tensor on any device, a list) as bool [n]; raises UsageError where they are not that."""
    array = as_array(values, name)
    if array.ndim != 1 or not len(array):
        raise UsageError(
            f"{name} has shape {array.shape}: it holds one true or false per example, [n] with n > 0"
        )
    if array.dtype == object and all(isinstance(one, (bool, np.bool_)) for one in array):
        array = array.astype(bool)
    if array.dtype != bool and not (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all()):
        odd = array[~np.isin(array, (0, 1))][:1] if array.dtype.kind in "iuf" else array[:1]
        raise UsageError(
            f"{name} holds {odd[0]!r}, not true and false. Fix: give predictions == labels, not the predictions"
        )
    return array.astype(bool)


def as_array(values: Any, name: str) -> np.ndarray:
    """`values` as a NumPy array of any kind; raises UsageError for what is none, and for masked arrays."""
    if isinstance(values, np.ma.MaskedArray):
        raise UsageError(
            f"{name} is a masked array: of hidden examples nothing is known. Fix: leave them out"
        )
    if (detach := getattr(values, "detach", None)) is not None:
        values = detach().cpu()
        values = values.float() if values.is_floating_point() else values
    try:
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} is no array: {error}. Fix: give one value per example") from None


def confidence(alpha: float) -> str:
    """1 - alpha in words.

    >>> confidence(0.05), confidence(0.025)
    ('at 95% confidence', 'at 97.5% confidence')
    """
    return f"at {round(100 * (1 - alpha), 4):g}% confidence"


def _judged(n: int, b: int, c: int, margin: float, alpha: float) -> Mapping[str, Any]:
    z = float(critical_values(n, margin, alpha, low=b + c, high=b + c)[b + c])
    t = float(score(b, c, n, margin))
    figures: dict[str, Any] = {"statistic": t, "critical": z, "bound": _bound(n, b, c, z)}
    seen = (b + c) / n
    strength = power(n, margin, min(seen, 1.0), alpha)
    needed = examples_needed(margin, seen, alpha, more_than=n if strength < ENOUGH else 0)
    needed = needed if strength < ENOUGH else min(n, needed or n)
    figures |= {"power": strength, "examples_needed": needed}
    lost, told = (b - c) / n, told_points(margin)
    if t <= z:
        why = f"it loses at most {_points(figures['bound'])} {confidence(alpha)}, which is within {told}"
        return figures | {"verdict": "certified", "why": why}
    if t >= -z and lost > margin:
        why = f"it loses {_points(lost)}, more than {told} {confidence(alpha)}"
        return figures | {"verdict": "not certified", "why": why}
    if strength >= ENOUGH:
        why = (
            f"it may lose up to {_points(figures['bound'])}; {n} examples show a network as good as the reference "
            f"to be within {told} with {strength:.0%} probability, and did not show it of this one"
        )
        return figures | {"verdict": "not certified", "why": why}
    return figures | {"verdict": "cannot certify", "why": _too_few(n, seen, margin, strength, needed)}


def _too_few(n: int, seen: float, margin: float, strength: float, needed: int | None) -> str:
    about = f"{needed} would do" if needed else "more examples than can be asked for would be needed"
    return (
        f"{n} examples are too few: where the two disagree on {seen:.1%} of them, one as good as the reference is "
        f"shown to be within {told_points(margin)} with {strength:.0%} probability only; {about} for {ENOUGH:.0%}"
    )


def told_points(share: float) -> str:
    """A margin in words.

    >>> told_points(0.01), told_points(0.005)
    ('1 point', '0.5 points')
    """
    return f"{100 * share:g} point{'' if share == 0.01 else 's'}"


def _points(share: float) -> str:
    return f"{100 * share:.2f} points"


def _bound(n: int, b: int, c: int, z: float) -> float:
    """The least margin whose T, at the critical value of the margin asked for, would certify."""
    low, high = 0.0, 1.0
    if float(score(b, c, n, 1e-12)) <= z:
        return 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if float(score(b, c, n, middle)) <= z else (middle, high)
    return high
