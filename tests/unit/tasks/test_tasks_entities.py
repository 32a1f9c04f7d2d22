"""Entities and their scores: seqeval's numbers, a slow twin, and the task that uses them."""

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from penjing.core import UsageError
from penjing.tasks._entities import Entity, entities, entity_scores, kinds, parse
from penjing.tasks._protocols import SequenceTask
from penjing.tasks._token_classification import token_classification


def breaks(before: str, now: str) -> bool:
    if "O" in (before, now):
        return True
    (first, kind), (second, other) = parse(before), parse(now)
    return kind != other or first in "ES" or second in "BS"


def slow_twin(tags: tuple[str, ...]) -> set[Entity]:
    """Every span of words inside, unbroken within and broken at both ends."""
    framed, found = ("O", *tags, "O"), set()
    for start in range(1, len(tags) + 1):
        for end in range(start + 1, len(tags) + 2):
            whole = not any(breaks(framed[i - 1], framed[i]) for i in range(start + 1, end))
            ends = breaks(framed[start - 1], framed[start]) and breaks(framed[end - 1], framed[end])
            if framed[start] != "O" and whole and ends:
                found.add(Entity(parse(framed[start])[1], start - 1, end - 1))
    return found


def test_every_short_sentence_is_read_as_the_slow_twin_reads_it() -> None:
    tags = ("O", "B-A", "I-A", "E-A", "S-A", "I-B", "B-B")
    for sentence in product(tags, repeat=4):
        assert set(entities(sentence)) == slow_twin(sentence)


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("I-PER I-PER O", [("PER", 0, 2)]),  # IOB1
        ("I-PER B-PER O", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-PER E-PER I-PER", [("PER", 0, 2), ("PER", 2, 3)]),  # IOE
        ("B-PER I-PER E-PER S-PER", [("PER", 0, 3), ("PER", 3, 4)]),  # IOBES
        ("B-PER I-PER L-PER U-PER", [("PER", 0, 3), ("PER", 3, 4)]),  # BILOU
        ("I-PER I-LOC O", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("PER PER O LOC", [("PER", 0, 2), ("LOC", 3, 4)]),  # no prefixes
        ("B-A-B I-A-B", [("A-B", 0, 2)]),
        ("", []),
    ],
)
def test_schemes(tags: str, wanted: list[tuple[str, int, int]]) -> None:
    assert [tuple(entity) for entity in entities(tags.split())] == wanted


# Truths, answers, and the precision, recall and F1 that seqeval 1.2.2 gives in its default mode; the first is the
# example in its documentation, the others are random.
SEQEVAL = [
    ("O O O B-M I-M I-M O | B-P I-P O", "O O B-M I-M I-M I-M O | B-P I-P O", 0.5, 0.5, 0.5),
    ("I-B I-A B-A B-A B-A I-A O I-B", "I-B I-A B-A B-A O I-A O B-A", 2 / 3, 2 / 3, 2 / 3),
    ("O", "O", 0.0, 0.0, 0.0),
    ("I-A I-A I-B I-A B-A O I-B I-B I-B | B-B B-A I-B B-B I-A | I-A B-A I-A B-A",
     "I-A O I-B I-A I-B B-A I-B I-B I-B | B-B O I-B B-B I-A | I-A B-A B-A B-A", 9 / 14, 9 / 13, 2 / 3),
    ("E-B E-A E-B O I-B E-B I-A | I-B I-A E-A E-B E-A I-B I-A O E-B",
     "E-B I-A E-B O I-B E-B I-A | I-B I-A O I-A E-A I-B I-A O E-B", 9 / 11, 0.75, 18 / 23),
    ("E-A | I-A I-B O I-A E-A I-A O E-B O | I-B I-A I-B I-B I-A I-B",
     "E-A | I-A I-B E-B I-A E-A I-A O E-B O | I-B I-A I-B I-B I-A I-B", 10 / 11, 10 / 11, 10 / 11),
    ("I-B I-B B-A | B-A B-A I-A B-A S-A E-B I-B S-B | S-A S-A B-B S-B B-B B-B I-A I-A I-A",
     "O I-B E-B | B-A E-A I-A B-A I-B B-B I-B S-B | S-A S-A B-B E-B S-B B-B I-A I-A B-B", 3 / 7, 0.375, 0.4),
    ("B-B | S-B B-A B-B E-A O B-A S-A | E-B E-A B-B", "B-B | S-B O B-B E-A O B-A B-A | S-A B-B I-B", 0.75, 0.6, 2 / 3),
]  # fmt: skip


@pytest.mark.parametrize(("truth", "answer", "precision", "recall", "f1"), SEQEVAL)
def test_scores_are_seqevals(truth: str, answer: str, precision: float, recall: float, f1: float) -> None:
    truths, answers = ([part.split() for part in text.split("|")] for text in (truth, answer))
    found = entity_scores(answers, truths, ("A",))
    assert (found.precision, found.recall, found.f1) == pytest.approx((precision, recall, f1), abs=1e-12)


def test_scores_by_kind() -> None:
    truths = [["B-A", "O", "B-B"], ["B-A", "I-A", "O"]]
    answers = [["B-A", "O", "O"], ["B-A", "O", "O"]]
    found = entity_scores(answers, truths, ("A", "B", "C"))
    assert found.f1_by_kind["A"] == 0.5
    assert found.f1_by_kind["B"] == 0.0
    assert math.isnan(found.f1_by_kind["C"])
    assert kinds(("O", "B-B", "I-B", "B-A")) == ("A", "B")


LABELS = ("O", "B-PER", "I-PER", "B-LOC")
TARGETS = torch.tensor([[-100, 1, -100, 2, 0, -100], [-100, 0, 3, -100, -100, -100]])


def batch_of(predicted: list[list[int]]) -> tuple[torch.Tensor, Any]:
    logits = F.one_hot(torch.tensor(predicted), len(LABELS)).float() * 9
    return logits, ({"input_ids": torch.zeros_like(TARGETS)}, TARGETS)


def test_only_words_are_scored() -> None:
    task = token_classification(LABELS)
    assert isinstance(task, SequenceTask)
    assert task.headline == ("f1", True)
    logits, batch = batch_of([[3, 1, 3, 2, 0, 3], [3, 0, 0, 3, 3, 3]])
    assert task.positions(logits, batch).tolist() == (TARGETS != -100).tolist()
    assert task.answers(logits, batch) == [(1, 2, 0), (0, 0)]
    assert task.truths(batch) == [(1, 2, 0), (0, 3)]
    found = task.metric(task.answers(logits, batch), task.truths(batch))
    assert (found["precision"], found["recall"], found["accuracy"]) == (1.0, 0.5, 0.8)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["per_class"] == {"LOC": 0.0, "PER": 1.0}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_words(smoothing: float) -> None:
    task = token_classification(LABELS, smoothing)
    logits = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    keep = TARGETS != -100
    wanted = F.cross_entropy(logits[keep], TARGETS[keep], label_smoothing=smoothing)
    for outputs in (logits, {"logits": logits}, (logits, None)):
        torch.testing.assert_close(task.loss(outputs, ({}, TARGETS)), wanted)
    nothing = torch.full_like(TARGETS, -100)
    assert task.loss(logits, ({}, nothing)).item() == 0.0


def test_what_does_not_fit_is_refused() -> None:
    task = token_classification(LABELS)
    with pytest.raises(UsageError, match=r"\[batch, tokens, tags\]"):
        task.loss(torch.zeros(2, 4), ({}, TARGETS))
    with pytest.raises(UsageError, match="No logits"):
        task.logits({"hidden": TARGETS})
    with pytest.raises(UsageError, match="differ in length"):
        task.metric([(0, 1)], [(0,)])
    with pytest.raises(UsageError, match="two or more"):
        token_classification(("O", "O"))
    with pytest.raises(UsageError, match="label_smoothing"):
        token_classification(LABELS, 1.0)
