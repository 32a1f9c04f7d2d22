"""What the user asks for, as text: `latency<=0.5x,params<=2M`, and a margin in points."""

import difflib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn

from penjing.core._errors import UsageError
from penjing.core._words import clean, cut

LONGEST = 200
_COUNT = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_TIME = {"ms": 1, "s": 10**3}
_BYTES = {"KB": 10**3, "MB": 10**6}
_SCALES = {"latency": _TIME, "macs": _COUNT, "params": _COUNT, "size": _BYTES, "memory": _BYTES}
_EXAMPLES = {"latency": "12ms", "macs": "300M", "params": "2M", "size": "5MB", "memory": "64MB"}
_UNITS = ("x", "k", "M", "G", "ms", "s", "KB", "MB")
_LIMIT = re.compile(
    r"\s*(?P<metric>\w*)\s*(?P<sign><=)?\s*"
    r"(?P<number>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)?\s*(?P<unit>[^\W\d]*)\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One bound, `metric <= number unit`. Units are decimal; `x` is a share of the reference, in (0, 1]."""

    metric: str
    number: float
    unit: str

    def __post_init__(self) -> None:
        complaint = _complaint(self.metric, self.number, self.unit)
        if complaint:
            raise UsageError(complaint[1])

    def __str__(self) -> str:
        return f"{self.metric}<={_plain(self.number)}{self.unit}"

    @property
    def relative(self) -> bool:
        return self.unit == "x"

    def absolute(self, reference: float | None = None) -> float:
        """The bound in base units: ms for latency, bytes for size and memory, a count for macs and params.

        `reference` is the reference network's figure in the same base unit; only a relative limit uses it.

        >>> Limit(metric="size", number=5, unit="MB").absolute()
        5000000.0
        >>> Limit(metric="macs", number=0.5, unit="x").absolute(400e6)
        200000000.0
        """
        if not self.relative:
            return float(Decimal(str(self.number)) * _SCALES[self.metric][self.unit])
        if reference is None or not (math.isfinite(reference) and reference > 0):
            raise UsageError(
                f"{self} is relative to a reference, which must be a positive number: got {reference!r}"
            )
        return self.number * reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """One or more limits that hold together, one per metric; `str(budget)` is its stored form."""

    limits: tuple[Limit, ...]

    def __post_init__(self) -> None:
        if not self.limits:
            raise UsageError("a budget needs at least one limit, for example 'latency<=0.5x'")
        metrics = [limit.metric for limit in self.limits]
        for metric in metrics:
            if metrics.count(metric) > 1:
                raise UsageError(f"{metric} is limited twice in {str(self)!r}: keep the stricter limit")

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `METRIC<=NUMBER[x|k|M|G|ms|s|KB|MB]`, where a comma means and.

        Raises UsageError that shows the text, the place and the nearest known name.

        >>> Budget.parse("latency<=12ms, params<=0.5x").limits[1].absolute(4e6)
        2000000.0
        """
        if len(text) > LONGEST:
            raise UsageError(f"cannot read the budget {cut(text)!r}: it has {len(text)} characters")
        limits: list[Limit] = []
        start = 0
        for part in text.split(","):
            limit = _parse_limit(text, start, part)
            if any(limit.metric == earlier.metric for earlier in limits):
                _refuse(text, start, len(part), f"{limit.metric} is limited twice", "keep the stricter limit")
            limits.append(limit)
            start += len(part) + 1
        return cls(limits=tuple(limits))

    def limit(self, metric: str) -> Limit | None:
        """The limit on `metric`, or None where the budget leaves it free."""
        return next((limit for limit in self.limits if limit.metric == metric), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """The loss of accuracy that is accepted, in points: 1.0 point is 0.01 of accuracy, not 1% of it."""

    points: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.points) and 0 <= self.points < 100):
            raise UsageError(f"a margin is in points, at least 0 and below 100: got {_plain(self.points)}")

    def __str__(self) -> str:
        return _plain(self.points)

    @property
    def fraction(self) -> float:
        """The margin on accuracies given as fractions.

        >>> Margin.parse("1.0").fraction
        0.01
        """
        return self.points / 100

    @classmethod
    def parse(cls, text: str) -> "Margin":
        try:
            points = float(text)
        except ValueError:
            raise UsageError(
                f"cannot read the margin {text!r}: write points, for example 1.0 for 0.01"
            ) from None
        return cls(points=points)


def _parse_limit(text: str, start: int, part: str) -> Limit:
    found = _LIMIT.match(part)
    assert found is not None, "every piece of the pattern may be empty"
    metric, unit = found["metric"], found["unit"]

    def refuse(piece: str, problem: str, fix: str = "") -> NoReturn:
        at, end = found.span(piece)
        _refuse(text, start + max(at, 0), end - at, problem, fix)

    if not metric:
        refuse("metric", "a limit starts with a metric", f"known metrics: {', '.join(_SCALES)}")
    complaint = _complaint_about_metric(metric)
    if complaint:
        refuse("metric", complaint)
    if not found["sign"]:
        _refuse(text, start + found.end("metric"), 1, f"'<=' must follow {metric}", _example(metric))
    if not found["number"]:
        _refuse(text, start + found.end("sign"), 1, "a number must follow '<='", _example(metric))
    if found.end() != len(part):
        _refuse(
            text, start + found.end(), len(part) - found.end(), "this does not belong here", _example(metric)
        )
    complaint = _complaint(metric, float(found["number"]), unit)
    if complaint:
        refuse(*complaint)
    return Limit(metric=metric, number=float(found["number"]), unit=unit)


def _complaint(metric: str, number: float, unit: str) -> tuple[str, str] | None:
    """Which piece of a limit is wrong, and why; None for a sound one."""
    about_metric = _complaint_about_metric(metric)
    if about_metric:
        return "metric", about_metric
    fitting = ("x", *(known for known in _SCALES[metric] if known))
    if unit not in _UNITS and unit:
        return "unit", f"unknown unit {unit!r}{_nearest(unit, fitting)}. {metric} takes {', '.join(fitting)}"
    if unit != "x" and unit not in _SCALES[metric]:
        lacks = f"{unit!r} is no unit of {metric}" if unit else f"{metric} needs a unit"
        return ("unit" if unit else "number"), f"{lacks}: it takes {', '.join(fitting)}"
    if not (math.isfinite(number) and number > 0):
        return "number", f"a limit must be positive and finite, got {_plain(number)}"
    if unit == "x" and number > 1:
        return "number", f"a share of the reference lies in (0, 1], got {_plain(number)}x"
    return None


def _complaint_about_metric(metric: str) -> str | None:
    if metric in _SCALES:
        return None
    return f"unknown metric {metric!r}{_nearest(metric, _SCALES)}. Known: {', '.join(_SCALES)}"


def _refuse(text: str, at: int, width: int, problem: str, fix: str = "") -> NoReturn:
    at, width = len(clean(text[:at])), len(clean(text[at : at + width]))
    shown = f"  {clean(text)}\n  {' ' * at}{'^' * max(width, 1)}"
    raise UsageError(f"cannot read the budget: {problem}\n{shown}" + (f"\n{fix}" if fix else ""))


def _example(metric: str) -> str:
    return f"for example: {metric}<=0.5x or {metric}<={_EXAMPLES[metric]}"


def _nearest(name: str, known: Iterable[str]) -> str:
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[found[0]]!r}" if found else ""


def _plain(number: float) -> str:
    return repr(float(number)).removesuffix(".0")
