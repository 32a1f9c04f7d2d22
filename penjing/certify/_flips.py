"""Where two networks answer differently, whatever their averages say."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from penjing.certify._certify import as_correct, as_pair
from penjing.core import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Flips:
    """Counts of `n` examples. `churn`, the share of answers that changed, is no loss of accuracy: flips to the better
    are in it. `negative` counts answers that were right and became wrong (Yan et al., "Positive-congruent training",
    CVPR 2021), `positive` those that became right, `other` wrong answers that became other wrong answers.
    """

    n: int
    negative: int
    positive: int
    other: int

    @property
    def all(self) -> int:
        return self.negative + self.positive + self.other

    @property
    def churn(self) -> float:
        return self.all / self.n

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"churn": self.churn}


def flips(changed: Any, reference_correct: Any, candidate_correct: Any) -> Flips:
    """Counts from three bool [n]: whether the answers differ, and whether each was right. Raises UsageError for others,
    and where an answer that did not change became right or wrong.

    >>> found = flips([True, True, True, False], [True, False, False, True], [False, True, False, True])
    >>> (found.negative, found.positive, found.other, found.churn)
    (1, 1, 1, 0.75)
    """
    different = as_correct(changed, "changed")
    left, right = as_pair(reference_correct, candidate_correct)
    if len(different) != len(left):
        raise UsageError(
            f"changed has {len(different)} examples, the others {len(left)}. Fix: give the same examples in all three"
        )
    if ((left != right) & ~different).any():
        at = int(np.flatnonzero((left != right) & ~different)[0])
        raise UsageError(
            f"example {at} is right in one network alone and its answer did not change: these are not of the same "
            "examples. Fix: changed is reference_answers != candidate_answers"
        )
    return Flips(
        n=len(left),
        negative=int((left & ~right).sum()),
        positive=int((~left & right).sum()),
        other=int((different & ~left & ~right).sum()),
    )
