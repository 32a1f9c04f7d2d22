"""Penjing's rows: a criterion, how its scores are compared, and whether the residual stream stays whole."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

import penjing as pj
from benchmarks.quality_pairs import Case
from penjing.core import Plan
from penjing.recover import rebuild


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A smaller network; `seconds` of its making count as recovery, as data has changed its weights there."""

    model: nn.Module
    plan: Plan | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours:
    """`pj.prune` to the budget; `refit` adds closed-form reconstruction where the selection split says it helps."""

    criterion: str
    scope: str
    inner: bool
    refit: bool = False

    def cut(self, case: Case, budget: float) -> Cut:
        model, plan = pj.prune(
            case.copy(),
            case.example,
            budget=f"macs<={int(budget * case.macs)}",
            criterion=self.criterion,
            scope=self.scope,
            protect=case.pair.stream if self.inner else (),
            calibration=case.calibration(),
            loss=case.task.loss,
            seed=case.seed,
        )
        if not self.refit:
            return Cut(model=model, plan=plan)
        begun = time.process_time()
        rebuild(model, case.copy().eval(), plan, case.task, case.data, when="auto", seed=case.seed)
        return Cut(model=model, plan=plan, seconds=time.process_time() - begun)


def name_of(criterion: str, scope: str, inner: bool, refit: bool = False) -> str:
    return f"{criterion}-{scope}" + ("-inner" if inner else "") + ("+refit" if refit else "")


def _rows(*made: tuple[str, str, bool, bool]) -> dict[str, Ours]:
    return {name_of(*how): Ours(criterion=how[0], scope=how[1], inner=how[2], refit=how[3]) for how in made}


OURS: Mapping[str, Ours] = _rows(
    ("l2", "uniform", False, False),
    ("taylor", "uniform", True, False),
    ("taylor", "loss", True, False),
    ("taylor", "loss", True, True),
    ("obs", "loss", True, False),
    ("obs", "loss", False, True),
    ("obs", "loss", True, True),
)
