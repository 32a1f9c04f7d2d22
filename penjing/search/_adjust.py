"""Adjustments worth their cost: each priced alone, then done one after the other, by the loss that a millisecond costs.

An adjustment is fitted alone to what stood there, timed on the target runtime and judged by the calibration loss of the
network with it. The walk then does the one that costs least loss for what it saves, measures the network anew, and goes
on: what seemed cheap alone is tried again in the network as it is by then (lazy greedy, Minoux, "Accelerated greedy
algorithms", 1978). An adjustment may take the place of those done before, where it saves more than they do.
"""

import copy
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any

from torch import nn

from penjing.core import AdjustComponent, Plan, UsageError
from penjing.measure import Timekeeper, count_macs, count_params
from penjing.recover import fit_one, given_by
from penjing.structure import fingerprint
from penjing.surgery import Adjustable, adjustments, apply

NEVER = ("fold_norm", "shortcut")  # saves nothing that is not had in the end; saves nothing
LEAST = 0.004  # of the network's time: what an adjustment must save to be looked at
MANY = 24  # adjustments, more of which are judged at a glance first
LOOKED = 0.6  # of the time, after which no more are looked at, for what was seen to be done
CLOSE = 1.25  # of the next one's price: up to which what was tried again is still taken

Evaluate = Callable[[nn.Module], float]
Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """What a network takes and misses: milliseconds of a forward on the target runtime, and the calibration loss (None
    where it was not asked).
    """

    macs: int
    params: int
    milliseconds: float | None = None
    loss: float | None = None

    def of(self, metric: str) -> float:
        if metric == "latency":
            assert self.milliseconds is not None
            return self.milliseconds
        return float(self.macs if metric == "macs" else self.params)

    def to_dict(self) -> dict[str, Any]:
        figures = {one.name: getattr(self, one.name) for one in fields(self)}
        return figures | {"loss": self.loss if self.loss is None or math.isfinite(self.loss) else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """An adjustment and the network with it alone; `error` is the share of the variance of what stood there that its
    fitted component misses, None where that cannot be told.
    """

    edit: AdjustComponent
    says: str
    exact: bool
    alone: Weight
    error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        about = {"kind": self.edit.kind, "says": self.says, "exact": self.exact, "error": self.error}
        return {**about, **self.alone.to_dict()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The network as it is, the adjustments looked at, and those of them that were done one after the other, each with
    the network that it left; `late` where its time was over before it was.
    """

    start: Weight
    options: tuple[Priced, ...]
    done: tuple[tuple[Priced, Weight], ...]
    late: bool = False

    def sentences(self, number: int) -> tuple[str, ...]:
        """What the first `number` did: "layer4.1: dropped, -0.8 ms, +0.3% calibration loss"."""
        before, said = self.start, []
        for option, after in self.done[:number]:
            said.append(f"{option.says}, {saved(before, after)}")
            before = after
        return tuple(said)


def saved(before: Weight, after: Weight) -> str:
    """What an adjustment did to time and loss.

    >>> a = Weight(milliseconds=4.0, macs=10, params=2, loss=0.2)
    >>> saved(a, Weight(milliseconds=3.2, macs=8, params=2, loss=0.206))
    '-0.8 ms, +3.0% calibration loss'
    >>> saved(Weight(macs=10, params=2), Weight(macs=8, params=2))
    '-20.0% MACs'
    """
    if before.milliseconds is None or after.milliseconds is None:
        gained = f"{100 * (after.macs / max(1, before.macs) - 1):+.1f}% MACs"
    else:
        gained = f"{after.milliseconds - before.milliseconds:+.2g} ms"
    if before.loss is None or after.loss is None or before.loss <= 0:
        return gained
    return f"{gained}, {100 * (after.loss / before.loss - 1):+.1f}% calibration loss"


@dataclass(slots=True, kw_only=True)
class Adjusting:
    """A walk under way on `model`, which is left untouched.

    `batches` are inputs that new components are fitted on, `evaluate` the calibration loss of a network (lower is
    better); `glance` are the same of fewer examples, for pricing many adjustments. `metric` is what is to be saved:
    latency (then nothing is done that `keeper` does not measure to be faster), macs or params. No try begins after
    `seconds`.
    """

    model: nn.Module
    example_inputs: Any
    keeper: Timekeeper | None
    batches: Sequence[Any]
    evaluate: Evaluate
    glance: tuple[Sequence[Any], Evaluate] | None = None
    metric: str = "latency"
    kinds: Sequence[str] | None = None
    seconds: float = float("inf")
    progress: Progress | None = None
    _begun: float = field(default_factory=time.monotonic)
    _few: tuple[Sequence[Any], Evaluate] | None = None

    def walk(self, target: float, most: int) -> Walk:
        """Adjustments up to `most`, or until the metric is down to the share `target` of the whole network's."""
        start = self._weighed(self.model, self.evaluate(self.model))
        if self.metric == "latency" and start.milliseconds is None:
            return Walk(start=start, options=(), done=(), late=True)
        options = self._priced(start)
        done = self._done(start, options, target * start.of(self.metric), most)
        return Walk(start=start, options=options, done=done, late=self._late())

    def _priced(self, start: Weight) -> tuple[Priced, ...]:
        """Those that save enough, fitted and judged alone."""
        every = [one for one in adjustments(self.model, self.example_inputs) if self._wanted(one)]
        found = weighed_alone(self.model, self.example_inputs, every, self._time, self._tell)
        most = (1 - LEAST) * start.of(self.metric)
        able = [one for one in found if self.metric != "latency" or one.alone.milliseconds is not None]
        able = sorted((one for one in able if one.alone.of(self.metric) <= most), key=self._cost)
        self._few = self.glance if len(able) > MANY else None
        batches, evaluate = self._few or (self.batches, self.evaluate)
        assert start.loss is not None
        apart = start.loss - evaluate(self.model) if self._few else 0.0
        judging = judged_alone(self.model, able, batches, evaluate, self._tell)
        seen = itertools.takewhile(lambda _: not self._late(LOOKED), judging)
        return tuple(replace(one, alone=_raised(one.alone, apart)) for one in seen)

    def _cost(self, one: Priced) -> float:
        return one.alone.of(self.metric)

    def _wanted(self, one: Adjustable) -> bool:
        wanted = one.kind not in NEVER if self.kinds is None else one.kind in self.kinds
        return one.edit is not None and wanted

    def _done(
        self, start: Weight, options: Sequence[Priced], target: float, most: int
    ) -> tuple[tuple[Priced, Weight], ...]:
        now, weight, done = self.model, start, list[tuple[Priced, Weight]]()
        prices, open_ones = self._prices(start, start, done, options), set(options)
        fresh: set[Priced] = set()
        while prices and len(done) < most and weight.of(self.metric) > target and not self._late():
            one = min(prices, key=lambda option: prices[option])
            if math.isinf(prices.pop(one)[0]):
                break
            self._tell("adjustments done", len(done), most)
            kept = [other for other, _ in done if not _overlap(one.edit, other.edit)]
            base = now if len(kept) == len(done) else self._made(kept)
            if one not in fresh and prices:
                loss = self._loss_of(base, weight, one)
                price = self._price(replace(_expected(start, weight, one, done), loss=loss), weight)
                if price[0] > CLOSE * min(prices.values())[0]:
                    prices[one] = price
                    fresh.add(one)
                    continue
            trial, loss = self._tried(base, one)
            after = self._weighed(trial, loss)
            open_ones.discard(one)
            timed = self.metric != "latency" or after.milliseconds is not None
            if not timed or after.of(self.metric) >= weight.of(self.metric):  # it does not pay after all
                continue
            done = [*(done if len(kept) == len(done) else self._again(kept)), (one, after)]
            now, weight = trial, after
            open_ones = {other for other in open_ones if self._may_follow(other, one)}
            prices = self._prices(start, weight, done, [o for o in options if o in open_ones])
            fresh.clear()
        return tuple(done)

    def _prices(
        self, start: Weight, now: Weight, done: Sequence[tuple[Priced, Weight]], options: Sequence[Priced]
    ) -> dict[Priced, tuple[float, float]]:
        """What each would cost now, were it as it is alone."""
        return {one: self._price(_expected(start, now, one, done), now) for one in options}

    def _may_follow(self, other: Priced, one: Priced) -> bool:
        """Whether it leaves alone what was done, or takes its place and saves more."""
        return not _overlap(other.edit, one.edit) or self._cost(other) < self._cost(one)

    def _made(self, options: Sequence[Priced]) -> nn.Module:
        """The network with these, fitted one after the other."""
        now = self.model
        for one in options:
            now, _ = self._tried(now, one)
        return now

    def _again(self, options: Sequence[Priced]) -> list[tuple[Priced, Weight]]:
        """These alone, each with the network that it leaves."""
        now, found = self.model, list[tuple[Priced, Weight]]()
        for one in options:
            now, loss = self._tried(now, one)
            found.append((one, self._weighed(now, loss)))
        return found

    def _price(self, after: Weight, before: Weight) -> tuple[float, float]:
        """Loss per unit of the metric saved; of those that cost none, the one that saves most goes first."""
        gained = before.of(self.metric) - after.of(self.metric)
        assert before.loss is not None
        assert after.loss is not None
        if gained <= 0 or math.isnan(after.loss):
            return float("inf"), 0.0
        return max(0.0, after.loss - before.loss) / gained, -gained

    def _tried(self, now: nn.Module, one: Priced) -> tuple[nn.Module, float]:
        """The network with one adjustment more, fitted, and its loss."""
        trial = _with(now, one.edit)
        wanted = given_by(self.model, one.edit.modules[-1], self.batches)
        fit_one(self.model, trial, one.edit, self.batches, wanted)
        return trial, self.evaluate(trial)

    def _loss_of(self, base: nn.Module, now: Weight, one: Priced) -> float:
        """The loss of `base` with one adjustment more, at a glance where there are many; `now` is as it is."""
        if self._few is None:
            return self._tried(base, one)[1]
        batches, evaluate = self._few
        trial = _with(base, one.edit)
        fit_one(self.model, trial, one.edit, batches, given_by(self.model, one.edit.modules[-1], batches))
        assert now.loss is not None
        return now.loss + evaluate(trial) - evaluate(base)

    def _weighed(self, model: nn.Module, loss: float) -> Weight:
        return Weight(
            milliseconds=self._time(model),
            macs=count_macs(model, self.example_inputs),
            params=count_params(model),
            loss=loss,
        )

    def _time(self, model: nn.Module) -> float | None:
        if self.keeper is None or self._late():
            return None
        return self.keeper.time(model, operators=False).milliseconds

    def _late(self, share: float = 1.0) -> bool:
        return time.monotonic() - self._begun > share * self.seconds

    def _tell(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total, {})


def weighed_alone(
    model: nn.Module,
    example_inputs: Any,
    every: Sequence[Adjustable],
    time_of: Callable[[nn.Module], float | None],
    tell: Callable[[str, int, int], None],
) -> list[Priced]:
    """Each adjustment's network alone: its counts, and its time, asked once for all that change alike layers alike."""
    blank = _countable(model, example_inputs)
    known: dict[Any, float | None] = {}
    found: list[Priced] = []
    for number, one in enumerate(every):
        assert one.edit is not None
        tell("adjustments timed", number, len(every))
        with _if_it_runs():
            made = _with(blank, one.edit)
            sizes = count_macs(made, example_inputs), count_params(made)
            alike = one.kind, one.edit.options, *sizes
            if alike not in known:
                known[alike] = time_of(_with(model, one.edit))
            alone = Weight(milliseconds=known[alike], macs=sizes[0], params=sizes[1])
            found.append(Priced(edit=one.edit, says=one.says, exact=one.exact, alone=alone))
    return found


@contextmanager
def _if_it_runs() -> Iterator[None]:
    """Skips what is inside where the network cannot be made, or does not run: then the adjustment is no option."""
    try:
        yield
    except (MemoryError, TimeoutError):
        raise
    except Exception:
        return


def _countable(model: nn.Module, example_inputs: Any) -> nn.Module:
    """The network without data, which is faster to change, where it can be counted so; else as it is."""
    blank = copy.deepcopy(model).to("meta")
    try:
        count_macs(blank, example_inputs)
    except UsageError:
        return model
    return blank


def judged_alone(
    model: nn.Module,
    options: Sequence[Priced],
    batches: Sequence[Any],
    evaluate: Evaluate | None,
    tell: Callable[[str, int, int], None],
) -> Iterator[Priced]:
    """Each with the error that is left of it once it is fitted, and the loss of the network with it."""
    by_place: dict[str, list[Priced]] = {}
    for one in options:
        by_place.setdefault(one.edit.modules[-1], []).append(one)
    number = 0
    for place, there in by_place.items():
        wanted = given_by(model, place, batches)
        for one in there:
            tell("adjustments judged", number, len(options))
            number += 1
            judged = None
            with _if_it_runs():
                trial = _with(model, one.edit)
                fitted = fit_one(model, trial, one.edit, batches, wanted)
                loss = None if evaluate is None else evaluate(trial)
                judged = replace(one, error=fitted.after, alone=replace(one.alone, loss=loss))
            if judged is not None:
                yield judged


def _raised(weight: Weight, by: float) -> Weight:
    """Its loss on other examples, on which the network itself misses so much more."""
    return weight if weight.loss is None else replace(weight, loss=weight.loss + by)


def _with(model: nn.Module, edit: AdjustComponent) -> nn.Module:
    return apply(model, Plan(edits=(edit,), fingerprint=fingerprint(model)))


def _expected(start: Weight, now: Weight, one: Priced, done: Sequence[tuple[Priced, Weight]]) -> Weight:
    """The network with one more, if each costs and saves what it does alone; what it takes the place of goes."""
    gone = [other.alone for other, _ in done if _overlap(one.edit, other.edit)]

    def sums(figure: str) -> Any:
        before, own = getattr(start, figure), getattr(one.alone, figure)
        others = [getattr(weight, figure) for weight in gone]
        known = [getattr(now, figure), before, own, *others]
        if any(value is None for value in known):
            return None
        return known[0] + own - before - sum(value - before for value in others)

    return Weight(**{field.name: sums(field.name) for field in fields(Weight)})


def _overlap(one: AdjustComponent, other: AdjustComponent) -> bool:
    """Whether one of them changes what the other one changes, or lies in it."""
    return any(
        a == b or a.startswith(f"{b}.") or b.startswith(f"{a}.") for a in one.modules for b in other.modules
    )
