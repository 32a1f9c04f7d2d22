"""Latency budgets met by measurement, on a clock that the test keeps."""

from collections.abc import Callable
from typing import Any, Self

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.core import BudgetError
from penjing.measure import Timing, count_macs
from penjing.search import _within_time
from penjing.search._to_latency import Aimed

X = torch.randn(1, 3, 16, 16)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip


class Clock:
    """A keeper whose machine takes 1 ms and 1 ms per MMAC; a network that was pruned takes `surprise` times as long
    as those of random widths, which the table cannot know.
    """

    surprise = 1.0
    timed = 0

    def __init__(self, *, reference: nn.Module, **about: Any) -> None:
        self.milliseconds = self._true(reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        type(self).timed += 1
        factor = 1.0 if operators else self.surprise
        return Timing(milliseconds=factor * self._true(model), spread=0.0, operators={})

    @staticmethod
    def _true(model: nn.Module) -> float:
        return 1.0 + count_macs(model, X) / 1e6


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], type[Clock]]:
    def made(surprise: float) -> type[Clock]:
        kind = type("Surprising", (Clock,), {"surprise": surprise, "timed": 0})
        monkeypatch.setattr(_within_time, "Timekeeper", kind)
        return kind

    return made


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("surprise", [1.0, 1.15, 0.9])
def test_the_network_is_measured_within_the_budget_and_uses_it(
    clock: Callable[[float], type[Clock]], scope: str, surprise: float
) -> None:
    kind, told = clock(surprise), list[Aimed]()
    model = net()
    slim, plan = pj.prune(model, X, budget="latency<=0.5x", scope=scope, aimed=told.append)
    taken = surprise * Clock._true(slim)
    limit = 0.5 * Clock._true(model)
    assert 0.93 * limit <= taken <= limit
    assert told[0].measured == pytest.approx(taken)
    assert told[0].limit == pytest.approx(limit)
    assert kind.timed >= 14
    assert pj.verify(model, slim, plan, X).passed


def test_a_second_try_follows_what_the_first_one_took(clock: Callable[[float], type[Clock]]) -> None:
    clock(1.15)
    told = list[Aimed]()
    pj.prune(net(), X, budget="latency<=0.5x", aimed=told.append)
    assert len(told[0].tries) == 2
    first, second = told[0].tries
    assert first[1] > told[0].limit >= second[1]


def test_units_compete_by_loss_per_millisecond(clock: Callable[[float], type[Clock]]) -> None:
    clock(1.0)
    batches = [(torch.randn(8, 3, 16, 16), torch.randint(10, (8,)))]
    slim, _ = pj.prune(
        net(),
        X,
        budget="latency<=0.5x",
        criterion="taylor",
        scope="loss",
        calibration=batches,
        loss=lambda out, batch: nn.functional.cross_entropy(out, batch[1]),
    )
    assert 0.93 <= Clock._true(slim) / (0.5 * Clock._true(net())) <= 1


def test_a_budget_on_milliseconds_and_one_on_macs_hold_together(
    clock: Callable[[float], type[Clock]],
) -> None:
    clock(1.0)
    model = net()
    slim, _ = pj.prune(model, X, budget="latency<=0.9x,macs<=0.4x")
    assert count_macs(slim, X) <= 0.4 * count_macs(model, X)


def test_a_network_that_is_fast_enough_is_left_as_it_is(clock: Callable[[float], type[Clock]]) -> None:
    clock(1.0)
    slim, plan = pj.prune(net(), X, budget="latency<=1e6ms")
    assert not plan.edits
    assert count_macs(slim, X) == count_macs(net(), X)


@pytest.mark.parametrize("surprise", [1.0, 50.0])
def test_milliseconds_out_of_reach_are_refused_with_the_nearest(
    clock: Callable[[float], type[Clock]], surprise: float
) -> None:
    clock(surprise)
    with pytest.raises(BudgetError, match="latency<=") as caught:
        pj.prune(net(), X, budget="latency<=0.0001x" if surprise == 1 else "latency<=0.5x")
    assert caught.value.metric == "latency"
    assert caught.value.nearest is not None
    assert caught.value.nearest > 0
