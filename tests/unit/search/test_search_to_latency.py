"""Latency budgets met by measurement, on a clock that the test keeps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from torch import nn

import penjing as pj
from penjing.core import BudgetError, UsageError
from penjing.measure import Timing, count_macs
from penjing.search import _to_latency, _within_time
from penjing.search._designs import PACING
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
    as those of random widths, which the table cannot know. All but the reference take `pace` times as long.
    """

    surprise, pace = 1.0, 1.0
    timed = 0

    def __init__(self, *, reference: nn.Module, **about: Any) -> None:
        self.milliseconds = self._true(reference)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...

    @property
    def place(self) -> dict[str, str]:
        return {"device": f"the test's own clock, {type(self).__name__}"}

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        type(self).timed += 1
        factor = self.pace * (1.0 if operators else self.surprise)
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


class Stairs(Clock):
    """A layer whose width is no multiple of 16 takes half as long again, as with kernels that compute whole blocks."""

    @staticmethod
    def _true(model: nn.Module) -> float:
        odd = sum(m.out_channels % 16 > 0 for m in model.modules() if isinstance(m, nn.Conv2d))
        return (1 + count_macs(model, X) / 1e6) * (1 + odd / 6)


def deep() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, width in zip((3, 48, 64, 64, 80, 64), (48, 64, 64, 80, 64, 64), strict=True):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)).eval()


def test_between_networks_that_all_miss_the_limit_lies_one_that_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_within_time, "Timekeeper", Stairs)
    ends = []
    for between in (0, 8):
        monkeypatch.setattr(_to_latency, "BETWEEN", between)
        told = list[Aimed]()
        slim, plan = pj.prune(deep(), X, budget="latency<=0.65x", round_to=8, aimed=told.append)
        assert Stairs._true(slim) == told[0].measured <= told[0].limit
        assert pj.verify(deep(), slim, plan, X).passed
        ends.append(told[0].measured / told[0].limit)
    assert ends[0] < 0.9
    assert ends[1] >= 0.95


def test_folded_networks_are_timed_and_an_unfolded_one_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    forms = list[Any]()

    class Keeper(Clock):
        def __init__(self, *, reference: nn.Module, **about: Any) -> None:
            super().__init__(reference=reference, **about)
            forms.append(about["form"])

    monkeypatch.setattr(_within_time, "Timekeeper", Keeper)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 8, 3)).eval()
    slim, _ = pj.prune(model, X, budget="latency<=0.7x", folded=True)
    assert isinstance(slim[1], nn.BatchNorm2d)
    assert isinstance(forms[0](slim)[1], nn.Identity)
    with pytest.raises(UsageError, match="folded=2 must be True or False"):
        pj.prune(model, X, budget="latency<=0.7x", folded=2)  # type: ignore[arg-type]


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


def test_the_own_time_is_met_whatever_the_clock_says(clock: Callable[[float], type[Clock]]) -> None:
    kind = clock(1.2)
    _, plan = pj.prune(net(), X, budget="latency<=1x")
    assert not plan.edits
    assert kind.timed == 0


def test_what_the_table_calls_out_of_reach_is_measured_before_it_is_refused(
    clock: Callable[[float], type[Clock]],
) -> None:
    kind, told, model = clock(0.5), list[Aimed](), net()
    narrowest = Clock._true(pj.prune(model, X, ratio=0.999)[0])
    share = 0.8 * narrowest / Clock._true(model)
    slim, _ = pj.prune(model, X, budget=f"latency<={share}x", aimed=told.append)
    assert kind.surprise * Clock._true(slim) <= share * Clock._true(model)
    assert told[0].tries[0][0] > told[0].limit


def test_a_limit_of_milliseconds_that_does_not_bind_is_tried_once(
    clock: Callable[[float], type[Clock]],
) -> None:
    clock(1.0)
    told, model = list[Aimed](), net()
    slim, _ = pj.prune(model, X, budget="latency<=1000s,params<=0.5x", aimed=told.append)
    assert len(told[0].tries) == 1
    assert 0.4 < pj.measure(slim, X).params / pj.measure(model, X).params <= 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threads": 1.5}, "threads=1.5 must be"),
        ({"threads": True}, "threads=True must be"),
        ({"batch_size": "4"}, "batch_size='4' must be"),
        ({"runtime": None}, "runtime=None must be"),
        ({"reference": 3}, "reference must be a network"),
        ({"tables": 3}, "tables must be"),
        ({"aimed": 3}, "aimed must be a callable"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_before_anything_is_timed(
    clock: Callable[[float], type[Clock]], options: dict[str, Any], says: str
) -> None:
    kind = clock(1.0)
    with pytest.raises(UsageError, match=says):
        pj.prune(net(), X, budget="latency<=0.5x", **options)
    assert kind.timed == 0


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


def limits_and_counts(kind: type[Clock], model: nn.Module, **options: Any) -> tuple[Aimed, int]:
    """How the budget was reached, and how many networks were timed for it."""
    told, before = list[Aimed](), kind.timed
    pj.prune(model, X, budget="latency<=0.5x", aimed=told.append, **options)
    return told[0], kind.timed - before


def test_a_second_search_reuses_the_times_and_measures_its_result(
    clock: Callable[[float], type[Clock]],
) -> None:
    kind, model = clock(1.0), net()
    first, timed = limits_and_counts(kind, model)
    again, fewer = limits_and_counts(kind, model)
    assert (first.reused, again.reused) == (0, 12 - PACING)
    assert fewer == timed - (12 - PACING)
    assert again.measured == first.measured
    assert again.tries == first.tries


def test_times_kept_are_brought_to_the_pace_of_now(clock: Callable[[float], type[Clock]]) -> None:
    """The machine treats smaller networks worse than it did, and the reference as before."""
    kind, model = clock(1.0), net()
    limits_and_counts(kind, model)
    kind.pace = 1.3
    how, _ = limits_and_counts(kind, model)
    assert how.reused == 12 - PACING
    assert len(how.tries) == 1
    assert 0.96 * how.limit <= how.measured <= how.limit


def test_fresh_neither_reads_nor_keeps_times(
    clock: Callable[[float], type[Clock]], times_folder: Path
) -> None:
    kind, model = clock(1.0), net()
    assert limits_and_counts(kind, model, fresh=True)[0].reused == 0
    assert not list(times_folder.rglob("*.json"))
    limits_and_counts(kind, model)
    assert limits_and_counts(kind, model, fresh=True)[0].reused == 0


def test_other_widths_alignment_or_inputs_are_timed_anew(clock: Callable[[float], type[Clock]]) -> None:
    kind, model = clock(1.0), net()
    limits_and_counts(kind, model)
    assert limits_and_counts(kind, model, round_to=8)[0].reused == 0
    assert limits_and_counts(kind, model, protect=("0",))[0].reused == 0
    model[3] = nn.GELU()
    assert limits_and_counts(kind, model)[0].reused == 0
    told = list[Aimed]()
    pj.prune(net(), torch.randn(2, 3, 16, 16), budget="latency<=0.5x", aimed=told.append)
    assert told[0].reused == 0


def altered(text: str) -> str:
    return text.replace('"milliseconds": ', '"milliseconds": 1', 1)


def of_another_machine(text: str) -> str:
    return text.replace("test's own clock", "test's old clock", 1)


@pytest.mark.parametrize(
    "spoil",
    [lambda text: text[: len(text) // 2], lambda text: "[]", lambda text: "", altered, of_another_machine],
)
def test_a_torn_or_foreign_file_is_left_aside_with_a_note(
    clock: Callable[[float], type[Clock]], times_folder: Path, spoil: Callable[[str], str]
) -> None:
    kind, model = clock(1.0), net()
    limits_and_counts(kind, model)
    (kept,) = times_folder.rglob("*.json")
    kept.write_text(spoil(kept.read_text()))
    how, _ = limits_and_counts(kind, model)
    assert how.reused == 0
    assert f"{kept} was not used" in how.note
    assert limits_and_counts(kind, model)[0].note == ""


def test_times_that_no_longer_hold_are_taken_again(clock: Callable[[float], type[Clock]]) -> None:
    """By the times kept, nothing makes the network faster; the machine has changed since."""
    clock(1.0)._true = staticmethod(lambda model: 5.0)  # type: ignore[method-assign]
    with pytest.raises(BudgetError):
        pj.prune(net(), X, budget="latency<=0.5x")
    how, _ = limits_and_counts(clock(1.0), net())
    assert how.reused == 0
    assert how.measured <= how.limit


def test_a_folder_that_cannot_be_written_is_no_failure(
    clock: Callable[[float], type[Clock]], times_folder: Path
) -> None:
    kind = clock(1.0)
    times_folder.write_text("a file in the way")
    how, _ = limits_and_counts(kind, net())
    assert "could not be written" in how.note
    assert how.measured <= how.limit
