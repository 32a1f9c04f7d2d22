"""Measured times as they stand in metrics.json."""

from dataclasses import asdict
from typing import Any

from penjing.core import Measurement
from penjing.measure import Speedup


def faster(timed: Speedup) -> dict[str, Any]:
    """How many times faster b is than a, and both times."""
    sides = {"a_ms": milliseconds(timed.a), "b_ms": milliseconds(timed.b)}
    return {"ratio": timed.ratio, "low": timed.low, "high": timed.high, **sides}


def milliseconds(latency: Measurement) -> dict[str, Any]:
    left_out = ("metric", "value", "unit", "spread")
    about = {key: value for key, value in asdict(latency).items() if key not in left_out}
    return {"median": latency.value, "mad": latency.spread, **about}
