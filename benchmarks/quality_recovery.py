"""Recovery by `penjing.recover` for a given number of CPU seconds, the same for either side."""

import copy
import dataclasses
import inspect
import itertools
import statistics
import time
from collections.abc import Iterator
from typing import Any

from torch import nn

from benchmarks.quality_ours import Cut
from benchmarks.quality_pairs import Case
from penjing.recover import Fit, Training, evaluate, recover, reestimate_bn
from penjing.recover._bn import batch_norms

# A convolutional network that kept this share of the accuracy is trained at this share of the rate: what was refitted
# gets worse at the rate that wins back a broken one (ResNet-18 at 2x: 86.1% and 87.7%). Transformers do not: MiniLM on
# newsgroups at 2x 78.1% at the whole rate and 76.4% at 0.3 of it, at 4x 77.2% and 75.7% (seeds 0 and 2).
WHOLE, GENTLE = 0.95, 0.3
SLICES = 4  # times that the selection split is looked at while training
BN_EXAMPLES = 512
PROBE = 8  # steps that are timed beforehand
LEFT_OUT = 2  # of them: the first ones are slower
# Options of a run's step that recovery itself takes; others say what the run does around it.
TAKEN = {*inspect.signature(recover).parameters, *(field.name for field in dataclasses.fields(Training))}


class Sliced:
    """`data` whose training split comes as one endless row of passes, so that an "epoch" is any number of steps.

    `stamps` are the CPU clock's readings at each batch handed out.
    """

    def __init__(self, data: Any, batch_size: int, steps: int) -> None:
        self.data, self.batch_size, self.steps = data, batch_size, steps
        self.stamps: list[float] = []
        self._row: Iterator[Any] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)

    def n(self, split: str) -> int:
        return self.steps * self.batch_size if split == "train" else self.data.n(split)

    def batches(self, split: str, batch_size: int, **options: Any) -> Any:
        if split != "train" or "epoch" not in options:
            return self.data.batches(split, batch_size, **options)
        if self._row is None:
            self._row = self._passes(batch_size, {**options, "epoch": 0})
        return itertools.islice(self._row, self.steps)

    def _passes(self, batch_size: int, options: dict[str, Any]) -> Iterator[Any]:
        """Whole batches of one pass after another."""
        whole = max(1, self.data.n("train") // batch_size)
        for epoch in itertools.count():
            passing = self.data.batches("train", batch_size, **{**options, "epoch": epoch})
            for batch in itertools.islice(passing, whole):
                self.stamps.append(time.process_time())
                yield batch


def recovered(case: Case, cut: Cut) -> dict[str, Any]:
    """Recovers `cut.model` in place; what it cost. Seconds that its making counts are taken off beforehand."""
    gentle = batch_norms(cut.model) and _kept(case, cut) >= WHOLE
    rate = case.recipe.steps.recover.lr * (GENTLE if gentle else 1.0)
    step, fixed, look = _pace(case, cut, rate)
    left = case.pair.seconds - cut.seconds - fixed - (SLICES - 1) * look
    steps = max(1, int(left / step / SLICES))
    begun = time.process_time()
    fit = _run(case, cut.model, cut, Sliced(case.data, _batch_size(case), steps), SLICES, rate)
    spent = time.process_time() - begun + cut.seconds
    return {"recovery_seconds": round(spent, 1), "steps": SLICES * steps, "best": fit.best_epoch, "lr": rate}


def _kept(case: Case, cut: Cut) -> float:
    """The share of the transferred network's accuracy before training, selection split, batch norms re-estimated."""
    found = case.accuracy(settled(case, cut.model), "selection")
    return max(found, case.accuracy(cut.model, "selection")) / case.accuracy(case.model, "selection")


def settled(case: Case, model: nn.Module) -> nn.Module:
    """A copy with batch norms re-estimated on training examples; the network itself where it has none."""
    if not batch_norms(model):
        return model
    copied = copy.deepcopy(model)
    batches = case.data.batches("train", 128, seed=case.seed, shuffle=True)
    reestimate_bn(copied, itertools.islice(batches, BN_EXAMPLES // 128), case.task.inputs)
    return copied


def _pace(case: Case, cut: Cut, rate: float) -> tuple[float, float, float]:
    """CPU seconds of a step, of what comes once, and of a look at the selection split; measured on a copy."""
    data, model = Sliced(case.data, _batch_size(case), PROBE), copy.deepcopy(cut.model)
    begun = time.process_time()
    _run(case, model, cut, data, 1, rate)
    whole = time.process_time() - begun
    between = [b - a for a, b in itertools.pairwise(data.stamps)]
    step = statistics.median(between[LEFT_OUT:])
    begun = time.process_time()
    evaluate(model, case.task, case.data, "selection")
    look = time.process_time() - begun
    return step, max(0.0, whole - sum(between) - step), look


def _batch_size(case: Case) -> int:
    return case.recipe.steps.recover.batch_size


def _run(case: Case, model: nn.Module, cut: Cut, data: Sliced, epochs: int, rate: float) -> Fit:
    given = case.recipe.steps.recover.model_dump().items()
    options: dict[str, Any] = {name: value for name, value in given if name in TAKEN} | {
        "epochs": epochs,
        "lr": rate,
    }
    teacher = case.copy().eval()
    return recover(model, teacher, case.task, data, plan=cut.plan, augment=True, seed=case.seed, **options)
