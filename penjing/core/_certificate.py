"""What statistics say about a candidate that is to take the place of a reference."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from penjing.core._errors import UsageError

Verdict = Literal["certified", "not certified", "cannot certify"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A verdict on the claim that a candidate's metric is worse than the reference's by less than `margin`.

    `certified` errs with a probability of at most `alpha`, for one look at these examples. `not certified`: it is
    worse by more, or enough examples did not show that it is not. `cannot certify`: even a candidate exactly as good
    would not have been told from a worse one with a probability of `power` or less than 80%; `examples_needed` would
    do (None where that is not known). It says nothing of examples that are not drawn as these were.

    `reference`, `candidate`, `margin` and `bound` are in units of the metric (fractions): the candidate loses `loss`,
    and with confidence 1 - alpha at most `bound`. Of `n` examples (`clusters` groups of them where they belong
    together), `b` are right in the reference alone and `c` in the candidate alone, None for metrics that are no
    accuracy. Certified if `statistic` <= `critical`.
    """

    verdict: Verdict
    test: str
    metric: str
    larger_is_better: bool = True
    n: int
    clusters: int | None = None
    b: int | None = None
    c: int | None = None
    reference: float
    candidate: float
    margin: float
    alpha: float
    statistic: float | None = None
    critical: float | None = None
    bound: float
    power: float | None = None
    examples_needed: int | None = None
    why: str
    data_fingerprint: str | None = None
    file_fingerprint: str | None = None

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise UsageError(f"a verdict is one of {', '.join(get_args(Verdict))}: got {self.verdict!r}")
        if self.n < 1 or not 0 < self.alpha < 1 or not (math.isfinite(self.margin) and self.margin >= 0):
            raise UsageError(
                f"a certificate needs examples, alpha in (0, 1) and a margin of 0 or more: got n {self.n}, "
                f"alpha {self.alpha!r}, margin {self.margin!r}"
            )

    @property
    def certified(self) -> bool:
        return self.verdict == "certified"

    @property
    def loss(self) -> float:
        """How much worse the candidate is on these examples; negative where it is better."""
        return (self.reference - self.candidate) * (1 if self.larger_is_better else -1)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Certificate":
        known = {field.name for field in fields(cls)}
        if not known >= set(record):
            raise UsageError(f"not a certificate: unknown {', '.join(sorted(set(record) - known))}")
        try:
            return cls(**record)
        except TypeError as error:
            raise UsageError(f"not a certificate: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        return cls.from_dict(json.loads(text))
