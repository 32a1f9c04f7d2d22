"""What statistics say about a candidate that is to take the place of a reference."""

import json
import math
from collections.abc import Iterator, Mapping
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
        _refuse_odd(self)
        if self.n < 1 or not 0 < self.alpha < 1 or self.margin < 0:
            raise UsageError(
                f"a certificate needs examples, alpha in (0, 1) and a margin of 0 or more: got n {self.n}, "
                f"alpha {self.alpha!r}, margin {self.margin!r}"
            )
        if wrong := next(_contradictions(self), None):
            raise UsageError(f"a certificate that contradicts itself: {wrong}")

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
        if not isinstance(record, Mapping):
            raise UsageError(f"not a certificate: a {type(record).__name__} in place of its fields")
        known = {field.name for field in fields(cls)}
        if not known >= set(record):
            raise UsageError(f"not a certificate: unknown {', '.join(sorted(map(str, set(record) - known)))}")
        try:
            return cls(**record)
        except TypeError as error:
            raise UsageError(f"not a certificate: {error}") from None

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Raises UsageError for text that holds no certificate."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"not a certificate: no JSON can be read ({error})") from None


TEXTS = ("test", "metric", "why", "data_fingerprint", "file_fingerprint")
COUNTS = ("n", "clusters", "b", "c", "examples_needed")
NUMBERS = ("reference", "candidate", "margin", "alpha", "bound", "statistic", "critical", "power")
OPTIONAL = ("clusters", "b", "c", "statistic", "critical", "power", "examples_needed", *TEXTS[3:])
NEAR = 1e-9


def _refuse_odd(certificate: Certificate) -> None:
    """Raises UsageError where a field is of another kind than it should be."""
    kinds = {
        **dict.fromkeys(TEXTS, "text"),
        **dict.fromkeys(COUNTS, "a count"),
        **dict.fromkeys(NUMBERS, "finite"),
    }
    for name, kind in kinds.items():
        value: Any = getattr(certificate, name)
        if value is None and name in OPTIONAL:
            continue
        if not _fits(value, kind, name):
            raise UsageError(f"not a certificate: its {name} is {value!r}, not {kind}")
    if not isinstance(certificate.larger_is_better, bool):
        raise UsageError(f"not a certificate: its larger_is_better is {certificate.larger_is_better!r}")


def _fits(value: Any, kind: str, name: str) -> bool:
    if kind == "text":
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if kind == "a count":
        return isinstance(value, int) and value >= 0
    return math.isfinite(value) or (name == "critical" and value == -math.inf)


def _contradictions(found: Certificate) -> Iterator[str]:
    b, c = found.b, found.c
    if b is not None and c is not None:
        if b + c > found.n:
            yield f"{b} + {c} examples differ, of {found.n}"
        if abs(found.loss - (b - c) / found.n) > NEAR:
            yield f"the accuracies differ by {found.loss:g}, b and c by {(b - c) / found.n:g}"
    if found.clusters is not None and found.clusters > found.n:
        yield f"{found.clusters} groups, of {found.n} examples"
    if found.power is not None and not 0 <= found.power <= 1:
        yield f"a power of {found.power:g}"
    if found.verdict == "certified":
        if found.statistic is not None and found.critical is not None and found.statistic > found.critical:
            yield f"certified, and {found.statistic:g} is above {found.critical:g}"
        if found.bound > found.margin + NEAR:
            yield f"certified within {found.margin:g}, and it may lose {found.bound:g}"
