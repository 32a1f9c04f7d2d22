"""Rounds of pruning: how many, what each aims at, and what controls are given for them."""

import pytest

from penjing.core import Limit, Recipe, UsageError
from penjing.pipeline import steps_of
from penjing.pipeline._rounds import Round, epochs_in_all, rounds_of

BASE = {"task": "image-classification", "model": "timm:resnet18", "data": "builtin:digits"}


def recipe(budget: str, reconstruct: object = False, **prune: object) -> Recipe:
    steps = {"choose": {"on": False}, "prune": prune, "recover": {"epochs": 7, "reconstruct": reconstruct}}
    return Recipe.of({**BASE, "budget": budget, "steps": steps})


@pytest.mark.parametrize(
    ("budget", "rounds"),
    [
        ("macs<=0.5x", 1),
        ("params<=0.9x", 1),
        ("macs<=0.49x", 2),
        ("macs<=0.4x", 3),
        ("macs<=0.25x", 4),
        ("macs<=0.1x", 7),
        ("macs<=0.6x,params<=0.4x", 3),
        ("macs<=5M", 1),
    ],
)
def test_steps_of_about_30_percent_below_one_half(budget: str, rounds: int):
    assert len(rounds_of(recipe(budget))) == rounds
    assert len(rounds_of(recipe(budget, rounds=2))) == 2


@pytest.mark.parametrize("reconstruct", [True, "auto"])
def test_one_round_where_a_reconstruction_follows(reconstruct: object):
    assert len(rounds_of(recipe("macs<=0.1x", reconstruct))) == 1
    assert len(rounds_of(recipe("macs<=0.1x", reconstruct, rounds=3))) == 3


def test_every_round_is_a_step_that_is_done_once():
    names = [step.name for step in steps_of(recipe("macs<=0.4x", between=3))]
    assert names[2:8] == ["prune:1", "recover:1", "prune:2", "recover:2", "prune", "recover"]
    assert epochs_in_all(recipe("macs<=0.4x", between=3)) == 7 + 2 * 3
    assert epochs_in_all(recipe("macs<=0.5x")) == 7


def test_steps_of_a_round_read_what_the_step_reads():
    steps = {step.name: step for step in steps_of(recipe("macs<=0.4x"))}
    assert steps["prune:1"].reads("steps.prune.criterion")
    assert steps["prune:1"].reads("budget")
    assert steps["recover:2"].reads("steps.recover.lr")
    assert not steps["recover:2"].reads("steps.measure.rounds")


def test_bytes_and_memory_are_shared_among_rounds():
    limits, first = {"size": 2_500}, Round(number=1, of=2)
    assert first.budget(limits, {"size": 10_000}) == "size<=5.0KB"
    assert first.measured(Limit(metric="memory", number=0.25, unit="x")) == "memory<=0.5x"
    with pytest.raises(UsageError, match=r"memory as a share.*write memory<=0\.5x"):
        first.measured(Limit(metric="memory", number=5, unit="MB"))


def test_each_round_takes_the_same_share_of_what_is_left_and_the_last_meets_the_budget():
    limits, sizes = {"macs": 250, "params": 900}, {"macs": 1000, "params": 1000}
    asked = []
    for number in range(1, 5):
        budget = Round(number=number, of=4).budget(limits, sizes)
        asked.append(budget)
        sizes = {part.split("<=")[0]: int(part.split("<=")[1]) for part in budget.split(",")}
    assert [int(budget.split(",")[0].removeprefix("macs<=")) for budget in asked] == [707, 499, 353, 250]
    assert asked[-1] == "macs<=250,params<=900"


def test_a_bound_that_holds_already_stays_where_it_is():
    found = Round(number=1, of=2).budget({"macs": 250, "params": 900}, {"macs": 1000, "params": 800})
    assert found == "macs<=500,params<=800"
