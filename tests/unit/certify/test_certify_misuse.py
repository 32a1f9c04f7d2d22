"""What no test can be made of is refused, in words, and forecasts keep what they say."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import penjing as pj
from penjing.certify import (
    calibration,
    certify,
    certify_metric,
    check_limits,
    examples_needed,
    flips,
    power,
    ratio_sums,
    temperature,
    worst_parts,
)
from penjing.core import Certificate, UsageError

RIGHT = np.arange(400) % 10 > 0
LOGITS, TARGETS = [[2.0, 0.0], [0.0, 1.0]], [0, 1]


def wer(reference: Any, candidate: Any) -> Any:
    return ratio_sums("wer", reference, candidate, larger_is_better=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misuse:
    name: str
    run: Callable[[], Any]
    says: str


MISUSES = (
    Misuse(name="masked", run=lambda: certify(np.ma.array(RIGHT, mask=~RIGHT), RIGHT), says="masked array"),
    Misuse(name="ragged", run=lambda: certify([[True], [True, False]], RIGHT), says="no array|shape"),
    Misuse(name="none", run=lambda: certify([None, True], [True, True]), says="holds None"),
    Misuse(name="text", run=lambda: certify(["yes", "no"], [True, True]), says="not true and false"),
    Misuse(name="margin of text", run=lambda: certify(RIGHT, RIGHT, "1"), says="not a number"),
    Misuse(name="margin is true", run=lambda: certify(RIGHT, RIGHT, True), says="not a number"),
    Misuse(
        name="margin is nan", run=lambda: certify(RIGHT, RIGHT, float("nan")), says="share of all examples"
    ),
    Misuse(name="alpha is nan", run=lambda: certify(RIGHT, RIGHT, 0.01, float("nan")), says="alpha is nan"),
    Misuse(
        name="flips of labels", run=lambda: flips([2, 1], [True, False], [True, True]), says="not true and"
    ),
    Misuse(name="flips apart", run=lambda: flips([False], [True], [False]), says="did not change"),
    Misuse(name="target too high", run=lambda: calibration(LOGITS, [0, 2]), says="reach from 0 to 2"),
    Misuse(name="target below 0", run=lambda: temperature(LOGITS, [-1, 0]), says="reach from -1"),
    Misuse(name="cold", run=lambda: calibration(LOGITS, TARGETS, 0.0), says="temperature is 0"),
    Misuse(name="no logits", run=lambda: calibration([["a", "b"]], [0]), says="logits"),
    Misuse(name="infinite errors", run=lambda: wer([[np.inf, 1]], [[0, 1]]), says="finite counts"),
    Misuse(name="negative errors", run=lambda: wer([[-1, 1]], [[0, 1]]), says="finite counts"),
    Misuse(name="no words", run=lambda: wer([[0, 0]], [[0, 0]]), says="nothing to measure"),
    Misuse(name="other words", run=lambda: wer([[0, 4]], [[0, 5]]), says="same truth"),
    Misuse(
        name="parts alike", run=lambda: worst_parts(RIGHT, RIGHT, {1: RIGHT, "1": RIGHT}), says="read alike"
    ),
    Misuse(
        name="seed",
        run=lambda: certify_metric(wer([[0, 4]] * 30, [[0, 4]] * 30), 0.01, seed=-1),
        says="seed is -1",
    ),
)


@pytest.mark.parametrize("case", MISUSES, ids=lambda case: case.name)
def test_misuse_is_refused(case: Misuse):
    with pytest.raises(UsageError, match=case.says):
        case.run()


def test_kinds_of_arrays_count_alike():
    wanted = certify(RIGHT, ~RIGHT)
    boxed = np.array(RIGHT.tolist(), dtype=object)
    for given in (
        torch.tensor(RIGHT).bfloat16(),
        torch.tensor(RIGHT),
        RIGHT.tolist(),
        boxed,
        RIGHT.astype(int),
    ):
        assert certify(given, ~RIGHT) == wanted


def test_limits_are_plain():
    limits = check_limits(np.float32(0.25), np.float64(0.05))
    assert limits == (0.25, 0.05)
    assert all(type(one) is float for one in limits)
    assert json.loads(certify(RIGHT, RIGHT, np.float32(0.25)).to_json())["margin"] == 0.25


def test_a_tiny_margin_asks_for_more_than_can_be_had():
    found = certify(RIGHT, RIGHT, 1e-9)
    assert found.verdict == "cannot certify"
    assert found.examples_needed is None
    assert certify(RIGHT, RIGHT, 0.0).verdict == "cannot certify"


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1])
def test_as_many_examples_as_are_told_would_do(share: float):
    n = 300
    changed = np.arange(n) < round(share * n)
    left, right = np.ones(n, dtype=bool), np.ones(n, dtype=bool)
    left[changed], right[changed] = np.arange(changed.sum()) % 2 == 0, np.arange(changed.sum()) % 2 == 1
    found = certify(left, right, 0.01 if share == 0.1 else 0.005)
    assert found.verdict == "cannot certify"
    assert found.examples_needed is not None
    assert found.examples_needed > n
    assert f"{found.examples_needed} would do" in found.why
    assert power(found.examples_needed, found.margin, share) >= 0.8


def test_a_power_is_a_probability():
    assert power(5000, 0.3, 0.0) <= 1.0
    assert examples_needed(0.05, 0.1, more_than=10_000) == pytest.approx(10_001, rel=0.02)


HONEST = certify(RIGHT, RIGHT, 0.05)
NONSENSE: dict[str, dict[str, Any]] = {
    "n": {"n": 0},
    "n is true": {"n": True},
    "more differ than there are": {"b": 300, "c": 300},
    "other accuracies": {"candidate": 0.5},
    "power": {"power": 1.5},
    "nan": {"bound": float("nan")},
    "text": {"margin": "0.05"},
    "why": {"why": None},
    "beyond its margin": {"bound": 0.2},
    "above its critical value": {"statistic": 3.0},
    "verdict": {"verdict": "fine"},
    "unknown": {"author": "me"},
}


@pytest.mark.parametrize("change", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_no_certificate(change: dict[str, Any]):
    assert HONEST.certified
    assert Certificate.from_json(HONEST.to_json()) == HONEST
    with pytest.raises(UsageError, match=r"certificate|verdict"):
        Certificate.from_json(json.dumps(HONEST.to_dict() | change))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"verdict": "certified"}'])
def test_text_that_is_no_certificate(text: str):
    with pytest.raises(UsageError, match="not a certificate"):
        Certificate.from_json(text)


def test_a_certificate_cannot_be_bent():
    with pytest.raises(UsageError, match="contradicts itself"):
        dataclasses.replace(HONEST, bound=0.5)
    assert pj.certify(RIGHT, RIGHT, margin=0.05) == HONEST
