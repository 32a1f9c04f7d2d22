"""Bootstrap certificates of recall, F1 and word error rates; parts, sequences, flips and calibration."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, log_loss, recall_score

from penjing.certify import (
    bounds,
    calibration,
    certify,
    certify_metric,
    f1_sums,
    flips,
    in_order,
    ratio_sums,
    recall_sums,
    temperature,
    worst_parts,
)
from penjing.core import UsageError

RANDOM = np.random.default_rng(0)


def classified(n, classes=6, right=0.85, worse=0.02, better=0.02, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    rightly, other = random.random(n) < right, (labels + random.integers(1, classes, n)) % classes
    reference = np.where(rightly, labels, other)
    change = random.random(n) < np.where(rightly, worse / right, better / (1 - right))
    return labels, reference, np.where(change, np.where(rightly, other, labels), reference)


def test_sums_give_the_metrics_that_scikit_learn_gives():
    labels, reference, candidate = classified(400)
    for sums, metric in ((recall_sums, recall_score), (f1_sums, f1_score)):
        found = sums(labels, reference, candidate)
        left, right = found.values(found.counts)
        assert left == pytest.approx(metric(labels, reference, average="macro"))
        assert right == pytest.approx(metric(labels, candidate, average="macro"))
        assert found.n == found.examples == 400
        assert len(found.counts) < 120  # alike examples are one row


def test_word_error_rates_count_words_not_sentences():
    found = ratio_sums("wer", [[1, 10], [0, 2]], [[1, 10], [1, 2]], larger_is_better=False)
    assert found.loss(found.counts) == pytest.approx(1 / 12)


def test_bounds_are_those_of_scipy():
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(3)
    words = random.integers(5, 15, 300)
    left = random.binomial(words, 0.1)
    right = np.minimum(words, left + random.binomial(1, 0.15, 300))
    sums = ratio_sums("wer", np.c_[left, words], np.c_[right, words], larger_is_better=False)

    def loss(a, b, w):
        return (b.sum() - a.sum()) / w.sum()

    def end(confidence, side):
        found = scipy.bootstrap(
            (left, right, words), loss, paired=True, vectorized=False, n_resamples=4000, method="BCa",
            confidence_level=confidence, random_state=np.random.default_rng(0), alternative=side,
        )  # fmt: skip
        return found.confidence_interval

    found = bounds(sums, 0.05, resamples=20_000)
    assert found.lower == pytest.approx(end(0.95, "greater").low, abs=0.0015)
    assert found.upper == pytest.approx(end(0.95, "less").high + 1 / words.sum(), abs=0.0015)


def test_a_metric_is_certified_refused_or_left_open():
    alike, worse = classified(3000, worse=0.01, better=0.01), classified(3000, worse=0.08, better=0.0)
    assert certify_metric(recall_sums(*alike), 0.02).verdict == "certified"
    assert certify_metric(f1_sums(*alike), 0.02).verdict == "certified"
    assert certify_metric(f1_sums(*worse), 0.02).verdict == "not certified"
    few = certify_metric(f1_sums(*classified(80, worse=0.05, better=0.05, seed=2)), 0.01)
    assert few.verdict == "cannot certify"
    assert few.examples_needed is not None
    assert few.examples_needed > 80


def test_no_disagreement_among_few_examples_certifies_nothing():
    labels = np.arange(50) % 5
    found = certify_metric(recall_sums(labels, labels, labels), 0.01)
    assert found.verdict == "cannot certify"
    assert certify_metric(recall_sums(np.arange(2000) % 5, *[np.arange(2000) % 5] * 2), 0.01).certified


def test_examples_that_belong_together_are_drawn_together():
    """One bad speaker in ten: taken one by one the utterances seem to know more than they do."""
    speakers = np.repeat(np.arange(10), 40)
    words = np.full(400, 10)
    errors = np.where(speakers == 0, 3, 0)
    rows = np.c_[np.zeros(400), words], np.c_[errors, words]
    alone = bounds(ratio_sums("wer", *rows, larger_is_better=False))
    together = bounds(ratio_sums("wer", *rows, larger_is_better=False, clusters=speakers.tolist()))
    assert together.upper > 1.5 * alone.upper
    assert ratio_sums("wer", *rows, larger_is_better=False, clusters=speakers.tolist()).clusters == 10


def test_a_few_groups_certify_nothing_however_many_examples_they_hold() -> None:
    labels = np.arange(4000) % 5
    found = certify_metric(recall_sums(labels, labels, labels, (np.arange(4000) % 6).tolist()), 0.05)
    assert (found.verdict, found.clusters) == ("cannot certify", 6)
    assert "6 groups of examples are too few" in found.why


def test_wrong_sums_are_refused():
    with pytest.raises(UsageError, match="labels 3, reference 3, candidate 2"):
        recall_sums([0, 1, 1], [0, 1, 1], [0, 1])
    with pytest.raises(UsageError, match="class numbers, integers"):
        f1_sums([0.5, 1], [0, 1], [0, 1])
    with pytest.raises(UsageError, match=r"not \[n, 2\]"):
        ratio_sums("wer", [[1, 2]], [[1, 2], [3, 4]], larger_is_better=False)
    with pytest.raises(UsageError, match="2 groups for 3 examples"):
        recall_sums([0, 1, 1], [0, 1, 1], [0, 1, 1], clusters=["a", "b"])
    with pytest.raises(UsageError, match="1000 or more"):
        certify_metric(recall_sums([0, 1], [0, 1], [0, 1]), 0.01, resamples=10)


def test_a_forgotten_class_is_found_though_the_average_is_as_before():
    labels = np.arange(20_000) % 50
    reference = np.where(RANDOM.random(20_000) < 0.96, labels, (labels + 1) % 50)
    forgotten = np.where(labels == 3, 4, np.where(RANDOM.random(20_000) < 0.4, labels, reference))
    found = worst_parts(reference == labels, forgotten == labels, labels)
    assert certify(reference == labels, forgotten == labels, 0.01).certified
    assert [part.name for part in found.harmed] == ["3"]
    assert found.parts[0].loss > 0.8
    assert found.to_dict()["harmed"] == ["3"]


def test_parts_that_merely_scatter_are_not_accused():
    accused = 0
    for seed in range(40):
        labels, reference, candidate = classified(1200, classes=12, worse=0.03, better=0.03, seed=seed)
        accused += bool(worst_parts(reference == labels, candidate == labels, labels).harmed)
    assert accused <= 2


def test_slices_may_overlap_and_must_fit():
    right = np.ones(200, dtype=bool)
    wrong = right.copy()
    wrong[:40] = False
    long, loud = np.arange(200) < 60, np.arange(200) % 2 == 0
    found = worst_parts(right, wrong, {"long": long, "loud": loud, "none": np.zeros(200, dtype=bool)})
    assert {part.name for part in found.parts} == {"long", "loud"}
    assert found.harmed[0].name == "long"
    with pytest.raises(UsageError, match=r"parts\['long'\] has shape \(60,\)"):
        worst_parts(right, wrong, {"long": long[:60]})
    with pytest.raises(UsageError, match="one name per example"):
        worst_parts(right, wrong, ["a", "b"])


def test_a_sequence_stops_at_its_first_failure():
    right = [True] * 1900 + [False] * 100
    worse = [True] * 1700 + [False] * 300
    tests = {"a": right, "b": worse, "c": right}
    found = in_order(
        (name, lambda answers=answers: certify(right, answers)) for name, answers in tests.items()
    )
    assert [one.verdict for one in found.values()] == ["certified", "not certified", "cannot certify"]
    assert "comes after b" in found["c"].why


def test_flips_are_counted_by_kind():
    labels, reference, candidate = np.array([0, 0, 0, 0]), np.array([0, 1, 1, 0]), np.array([1, 0, 2, 0])
    found = flips(reference != candidate, reference == labels, candidate == labels)
    assert (found.negative, found.positive, found.other, found.all) == (1, 1, 1, 3)
    with pytest.raises(UsageError, match="same examples in all three"):
        flips([True], [True, False], [True, False])


def test_calibration_is_that_of_scikit_learn_and_the_temperature_is_found_again():
    random = np.random.default_rng(1)
    logits = random.normal(size=(4000, 5))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = np.array([random.choice(5, p=row) for row in chances])
    found = calibration(logits, targets)
    assert found.nll == pytest.approx(log_loss(targets, chances))
    truth = np.eye(5)[targets]
    assert found.brier == pytest.approx(((chances - truth) ** 2).sum(1).mean())
    assert found.ece < 0.03
    assert temperature(3 * logits, targets) == pytest.approx(3, rel=0.1)
    sharp = calibration(torch.from_numpy(3 * logits), torch.from_numpy(targets))
    assert sharp.ece > 0.1
    assert calibration(3 * logits, targets, temperature(3 * logits, targets)).ece < 0.03
    with pytest.raises(UsageError, match="finite"):
        calibration([[float("inf"), 0.0]], [0])
    with pytest.raises(UsageError, match="class numbers"):
        calibration([[1.0, 0.0]], [0.5])
