"""Who wins by successive halving, on scores that are made up."""

from collections.abc import Mapping, Sequence

import pytest

from penjing.search import Halved, Judge, Mark, halve

Scores = Mapping[str, Sequence[float]]


def judge(noise: float = 0.0, margin: float | None = None, costs: Mapping[str, float] | None = None) -> Judge:
    return Judge(
        cost=lambda name: (costs or {}).get(name, 1.0), noise=lambda best, other, rung: noise, margin=margin
    )


def race(scores: Scores, keep: Sequence[int] = (2,), by: Judge | None = None, **how: object) -> Halved:
    return halve(
        tuple(scores), lambda name, rung: Mark(score=scores[name][rung], loss=1.0), keep, by or judge(), **how
    )  # type: ignore[arg-type]


def outs(found: Halved) -> dict[str, str]:
    return {one.name: one.out for one in found.standings}


def test_a_ranking_that_flips_after_training_is_noticed() -> None:
    tried: list[tuple[str, int]] = []
    scores = {"a": (0.9, 0.91), "b": (0.8, 0.95), "c": (0.7, 0.99), "d": (0.6, 1.0)}

    def attempt(name: str, rung: int) -> Mark:
        tried.append((name, rung))
        return Mark(score=scores[name][rung], loss=0.0)

    found = halve(tuple(scores), attempt, (2,), judge())
    assert found.chosen == "b"
    assert tried == [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("a", 1), ("b", 1)]
    assert outs(found)["c"] == "not among the best 2 before training"
    assert outs(found)["a"] == "behind b"
    assert [len(one.marks) for one in found.standings] == [2, 2, 1, 1]


def test_ties_go_to_the_smaller_loss_then_to_the_first() -> None:
    marks = {"a": Mark(score=0.9, loss=0.5), "b": Mark(score=0.9, loss=0.4), "c": Mark(score=0.9, loss=0.4)}
    found = halve(tuple(marks), lambda name, rung: marks[name], (), Judge(cost=len, noise=lambda *_: -1.0))
    assert found.preferred.best == "b"
    assert found.chosen == "b"
    assert halve(("c", "b"), lambda name, rung: marks[name], (), judge()).chosen == "c"


def test_no_number_loses_against_any_number() -> None:
    assert race({"a": (float("nan"),), "b": (0.1,)}, keep=()).chosen == "b"


def test_a_lead_within_the_noise_goes_to_the_first_and_says_so() -> None:
    scores = {"first": (0.90,), "second": (0.91,)}
    found = race(scores, keep=(), by=judge(noise=0.02))
    assert found.preferred.name == "first"
    assert found.preferred.best == "second"
    assert found.preferred.why == "is the simpler choice"
    assert outs(found)["second"] == "ahead of first by no more than could be noise"
    assert race(scores, keep=(), by=judge(noise=0.005)).chosen == "second"


def test_the_margin_caps_what_is_given_away() -> None:
    scores = {"first": (0.90,), "second": (0.91,)}
    assert race(scores, keep=(), by=judge(noise=0.02, margin=0.005)).chosen == "second"
    assert race(scores, keep=(), by=judge(noise=0.02, margin=0.05)).chosen == "first"


def test_within_the_noise_the_cheaper_wins_but_not_for_a_trifle() -> None:
    scores = {"a": (0.91,), "b": (0.905,)}
    found = race(scores, keep=(), by=judge(noise=0.01, costs={"a": 0.5, "b": 0.4}))
    assert (found.chosen, found.preferred.why) == ("b", "costs less")
    assert race(scores, keep=(), by=judge(noise=0.01, costs={"a": 0.5, "b": 0.49})).chosen == "a"


def test_what_cannot_be_is_left_out_with_its_cause() -> None:
    def attempt(name: str, rung: int) -> Mark | str:
        return "out of reach" if name == "a" else Mark(score=0.5, loss=0.0)

    found = halve(("a", "b"), attempt, (2,), judge())
    assert found.chosen == "b"
    assert outs(found) == {"a": "out of reach", "b": ""}
    with pytest.raises(ValueError, match="a: out of reach"):
        halve(("a",), attempt, (2,), judge())


def test_what_there_is_no_time_for_is_left_out_but_the_first_never() -> None:
    scores = {"a": (0.5, 0.6), "b": (0.6, 0.7), "c": (0.7, 0.8)}
    found = race(scores, fits=lambda name, rung: name == "b")
    assert found.chosen == "b"  # rung 1 had time for one alone: it does not count
    assert found.rung == 0
    assert outs(found)["c"] == "no time was left to try it"
    alone = race(scores, fits=lambda name, rung: False)
    assert alone.chosen == "a"
    assert [len(one.marks) for one in alone.standings] == [1, 0, 0]


def test_a_rung_with_time_for_one_alone_leaves_the_ranking_before_it() -> None:
    scores = {"a": (0.5, 0.9), "b": (0.6, 0.7)}
    found = race(scores, fits=lambda name, rung: rung == 0 or name == "a")
    assert found.chosen == "b"
    assert [len(one.marks) for one in found.standings] == [1, 1]


def test_what_fails_in_training_is_out_whoever_is_left() -> None:
    def attempt(name: str, rung: int) -> Mark | str:
        return (
            "the loss is no number" if (name, rung) == ("a", 1) else Mark(score=0.5, loss=float(name == "b"))
        )

    found = halve(("a", "b"), attempt, (2,), judge())
    assert (found.chosen, found.rung) == ("b", 1)
    assert outs(found)["a"] == "the loss is no number"
