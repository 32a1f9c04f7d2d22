"""Non-inferiority of accuracies: exact size, power as forecast, and honest refusals."""

import math
from itertools import product

import numpy as np
import pytest
import torch

import penjing as pj
from penjing.certify import critical_values, examples_needed, power
from penjing.certify._tango import accepts, harm, score
from penjing.core import Certificate, UsageError


def answers(n, b, c, right=0.9):
    """Reference and candidate, of which b are right in the reference alone and c in the candidate alone."""
    reference = np.arange(n) < round(n * right)
    candidate = reference.copy()
    candidate[:b] = False
    candidate[n - c :] = True
    return reference, candidate


def by_hand(n, margin, z, p_b, p_c):
    """P(T <= z), outcome by outcome, in plain Python."""
    total, rest = 0.0, 1 - p_b - p_c
    for b, c in product(range(n + 1), repeat=2):
        if b + c <= n and float(score(b, c, n, margin)) <= z[b + c]:
            total += math.comb(n, b) * math.comb(n - b, c) * p_b**b * p_c**c * rest ** (n - b - c)
    return total


def root_by_hand(b, c, n, margin):
    """T from the likelihood itself: the constrained estimate of p_c found by a fine search."""
    q = np.linspace(1e-9, (1 - margin) / 2 - 1e-9, 400_001)
    likely = b * np.log(q + margin) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - margin)
    at = q[np.argmax(likely)]
    return (b - c - n * margin) / math.sqrt(n * (2 * at + margin * (1 - margin)))


@pytest.mark.parametrize(("b", "c", "n", "margin"), [(3, 2, 60, 0.05), (10, 4, 200, 0.02), (1, 9, 100, 0.1)])
def test_the_statistic_is_the_score_at_the_constrained_estimate(b, c, n, margin):
    assert float(score(b, c, n, margin)) == pytest.approx(root_by_hand(b, c, n, margin), abs=1e-4)


@pytest.mark.parametrize(("n", "margin"), [(12, 0.05), (30, 0.05), (40, 0.1)])
def test_sums_over_outcomes_are_those_counted_one_by_one(n, margin):
    z = critical_values(n, margin)
    for disagree in (margin, 0.2, 0.4):
        p_b, p_c = (disagree + margin) / 2, (disagree - margin) / 2
        assert accepts(n, margin, z, p_b, p_c) == pytest.approx(by_hand(n, margin, z, p_b, p_c), abs=1e-9)


@pytest.mark.parametrize("n", [50, 113, 268, 700, 2500])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.03, 0.05])
def test_a_candidate_worse_by_the_margin_is_certified_with_at_most_alpha(n, margin):
    z = critical_values(n, margin)
    shares = np.linspace(margin, 0.31, 37)
    sizes = [accepts(n, margin, z, (s + margin) / 2, (s - margin) / 2) for s in shares.tolist()]
    assert max(sizes) <= 0.05
    assert max(sizes) > (0.0 if n * margin < 3 else 0.03)  # and not by certifying nothing


def test_the_plain_quantile_breaks_its_promise_where_ours_does_not():
    plain = max(
        accepts(268, 0.01, -1.6449, (s + 0.01) / 2, (s - 0.01) / 2)
        for s in np.linspace(0.01, 0.1, 60).tolist()
    )
    assert plain > 0.065


@pytest.mark.parametrize(("n", "margin", "disagree"), [(500, 0.02, 0.05), (2000, 0.01, 0.03)])
def test_power_is_how_often_an_equal_candidate_is_certified(n, margin, disagree):
    random, cases, known = np.random.default_rng(0), 4000, dict[tuple[int, int], bool]()
    for b, c, _ in random.multinomial(n, [disagree / 2, disagree / 2, 1 - disagree], size=cases).tolist():
        known.setdefault((b, c), pj.certify(*answers(n, b, c, 0.7), margin).certified)
    random = np.random.default_rng(0)
    drawn = random.multinomial(n, [disagree / 2, disagree / 2, 1 - disagree], size=cases).tolist()
    share = sum(known[b, c] for b, c, _ in drawn) / cases
    assert share == pytest.approx(power(n, margin, disagree), abs=0.02)


def test_examples_needed_have_the_power_that_was_wanted():
    needed = examples_needed(0.01, 0.02)
    assert needed is not None
    assert power(round(1.05 * needed), 0.01, 0.02) > 0.8
    assert power(round(0.9 * needed), 0.01, 0.02) < 0.8


@pytest.mark.parametrize(
    ("n", "b", "c", "margin", "verdict"),
    [
        (2000, 20, 15, 0.01, "certified"),
        (1000, 5, 25, 0.01, "certified"),
        (1000, 60, 20, 0.01, "not certified"),
        (10_000, 300, 190, 0.01, "not certified"),
        (100, 0, 0, 0.01, "cannot certify"),
        (20, 1, 0, 0.01, "cannot certify"),
        (1000, 25, 10, 0.01, "cannot certify"),
        (1000, 0, 60, 0.0, "certified"),
    ],
)
def test_verdicts(n, b, c, margin, verdict):
    found = pj.certify(*answers(n, b, c), margin)
    assert (found.verdict, found.n, found.b, found.c) == (verdict, n, b, c)
    assert found.loss == pytest.approx((b - c) / n)
    assert found.why
    assert (found.bound <= margin) == found.certified
    if verdict == "cannot certify":
        assert found.power is not None
        assert found.power < 0.8


def test_too_few_examples_say_how_many_would_do():
    found = pj.certify(*answers(100, 1, 1), 0.01)
    assert found.verdict == "cannot certify"
    assert found.examples_needed is not None
    assert str(found.examples_needed) in found.why


def test_a_certificate_comes_back_from_json_and_keeps_its_fingerprints():
    found = pj.certify(*answers(500, 3, 3), 0.02, data_fingerprint="d" * 64, file_fingerprint="f" * 64)
    assert Certificate.from_json(found.to_json()) == found
    assert (found.data_fingerprint, found.file_fingerprint) == ("d" * 64, "f" * 64)
    with pytest.raises(UsageError, match="unknown colour"):
        Certificate.from_dict(found.to_dict() | {"colour": 1})
    with pytest.raises(UsageError, match="a verdict is one of"):
        Certificate.from_dict(found.to_dict() | {"verdict": "passed"})


def test_arrays_tensors_lists_and_numbers_0_and_1_are_alike():
    reference, candidate = answers(300, 4, 2)
    whole = pj.certify(reference, candidate, 0.02)
    assert pj.certify(torch.from_numpy(reference), candidate.tolist(), 0.02) == whole
    assert pj.certify(reference.astype(int), candidate.astype(float), 0.02) == whole


@pytest.mark.parametrize(
    ("reference", "candidate", "options", "match"),
    [
        ([True] * 5, [True] * 4, {}, "5 examples and candidate_correct 4: the test is paired"),
        ([], [], {}, r"shape \(0,\)"),
        ([[True]], [[True]], {}, r"shape \(1, 1\)"),
        ([0, 1, 2], [0, 1, 1], {}, "predictions == labels"),
        (["cat"], ["cat"], {}, "not true and false"),
        ([True, float("nan")], [True, True], {}, "not true and false"),
        ([True], [True], {"margin": 1.5}, "0.01 for one point"),
        ([True], [True], {"margin": -0.1}, "0 or more"),
        ([True], [True], {"margin": float("nan")}, "margin is nan"),
        ([True], [True], {"alpha": 0.0}, "alpha is 0.0"),
    ],
)
def test_wrong_use_is_refused_with_the_way_out(reference, candidate, options, match):
    with pytest.raises(UsageError, match=match):
        pj.certify(reference, candidate, **options)


def test_harm_is_rarely_seen_where_there_is_none():
    """P(p <= alpha) where the candidate is worse by just the margin, outcome by outcome."""
    n, margin, p_b, p_c = 60, 0.05, 0.125, 0.075
    total = 0.0
    for b, c in product(range(30), repeat=2):
        if b - c > n * margin and harm(b, c, n, margin) <= 0.05:
            total += math.comb(n, b) * math.comb(n - b, c) * p_b**b * p_c**c * 0.8 ** (n - b - c)
    assert 0.01 < total <= 0.05
