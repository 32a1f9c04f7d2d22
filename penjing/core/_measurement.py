"""A number with its unit, its spread and the environment it was taken in."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from penjing.core._errors import UsageError

_ENVIRONMENT = ("device", "runtime", "dtype", "threads", "batch_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """`value` is the median of `repeats` readings, `spread` their median absolute deviation, both in `unit`.

    The spread says how far single readings scatter; it is not a confidence interval of `value`.
    The environment (device, runtime, dtype, threads, batch size) belongs to the number: figures from two
    environments do not compare, see `compare`. Latency is in "ms" per batch, memory in "bytes".
    """

    metric: str
    value: float
    unit: str
    repeats: int
    spread: float
    device: str
    runtime: str
    dtype: str
    threads: int
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("value", "spread"):
            number = getattr(self, name)
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"a measurement's {name} must be finite and not negative, got {number!r}")
        for name in ("repeats", "threads", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"a measurement's {name} must be at least 1, got {getattr(self, name)!r}")

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.4g} ± {self.spread:.2g} {self.unit}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Measurement":
        expected = {field.name for field in fields(cls)}
        if set(record) != expected:
            odd = ", ".join(sorted(expected.symmetric_difference(record)))
            raise UsageError(f"not the record of a measurement: missing or unknown {odd}")
        return cls(**record)

    @classmethod
    def from_json(cls, text: str) -> "Measurement":
        return cls.from_dict(json.loads(text))


def compare(a: Measurement, b: Measurement) -> float:
    """The ratio `a.value / b.value`; UsageError unless metric, unit and environment are the same.

    It is a ratio of two medians taken one after the other, without an interval; a speed-up that is to be
    believed comes from interleaved runs (`penjing.measure.speedup`).
    """
    for name in ("metric", "unit", *_ENVIRONMENT):
        left, right = getattr(a, name), getattr(b, name)
        if left != right:
            raise UsageError(
                f"cannot compare {a.metric} with {b.metric}: {name} is {left!r} in one and {right!r} in the "
                f"other; measure both with the same {name}"
            )
    if b.value == 0:
        raise UsageError(f"cannot compare {a.metric}: the second value is 0 {b.unit}")
    return a.value / b.value
