"""Drop whole residual blocks, one at a time, by the loss they leave."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from penjing.core import Budget, BudgetError, UsageError, VerificationError
from penjing.core._edits import DropBlock
from penjing.core._plan import Plan
from penjing.search._cost import CostModel
from penjing.structure import Block, ExampleInputs, merge_weights, refuse_unsupported, residual_blocks, trace
from penjing.surgery import apply, verify

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """One dropped block, what `evaluate` said of the network without it, and what was left of its cost."""

    block: str
    loss: float
    macs: int
    params: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimReport:
    """What could go, what went in which order, and why it stopped."""

    candidates: tuple[str, ...]
    start_loss: float
    dropped: tuple[Dropped, ...]
    stopped: str


def trim(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    evaluate: Callable[[nn.Module], float],
    drop: int | None = None,
    budget: str | Budget | None = None,
    max_loss_increase: float | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, Plan, TrimReport]:
    """The network with whole residual blocks replaced by the identity, its plan, and a report.

    Blocks are candidates where the traced graph shows a shortcut of the same dims around them. Each round tries every
    remaining candidate, drops the one after which `evaluate` (calibration loss, lower is better) is lowest, and
    measures again. It stops after `drop` blocks, when `budget` (macs, params) holds, or before the loss would rise by
    more than `max_loss_increase` over the start; give at least one of the three.

    Raises `UsageError` without a stopping rule and `BudgetError` if dropping every candidate misses the budget.
    """
    if drop is None and budget is None and max_loss_increase is None:
        raise UsageError("trim needs a stopping rule: drop=1, budget='macs<=0.8x' or max_loss_increase=0.05")
    if drop is not None and (isinstance(drop, bool) or not isinstance(drop, int) or drop < 1):
        raise UsageError(f"drop={drop!r} must be a number of blocks of at least 1")
    refuse_unsupported(model)
    merged, merging = merge_weights(model)
    structure = trace(merged, example_inputs)
    blocks = residual_blocks(structure)
    search = _Search(merged, example_inputs, evaluate, progress)
    start = search.start()
    stop = _Stop(drop, start, max_loss_increase, _limits(budget, CostModel(structure), structure.gone({})))
    stopped = search.run(list(blocks), stop)
    plan = Plan(
        edits=tuple(DropBlock(module=b.path, tensors=b.tensors) for b in search.blocks),
        fingerprint=structure.fingerprint,
    )
    plan = plan if merging is None else merging.then(plan)
    slim = apply(model, plan)
    proof = verify(model, slim, plan, example_inputs)
    if not proof.passed:
        raise VerificationError(
            f"the network without {[b.path for b in search.blocks]} is not proven: {proof.cause}"
        )
    report = TrimReport(
        candidates=tuple(b.path for b in blocks),
        start_loss=start,
        dropped=tuple(search.dropped),
        stopped=stopped,
    )
    return slim, plan, report


def _limits(budget: str | Budget | None, cost: CostModel, none_gone: object) -> dict[str, float]:
    if budget is None:
        return {}
    parsed = Budget.parse(budget) if isinstance(budget, str) else budget
    full = {"macs": cost.macs(none_gone), "params": cost.params(none_gone)}  # type: ignore[arg-type]
    unknown = [limit.metric for limit in parsed.limits if limit.metric not in full]
    if unknown:
        raise UsageError(f"trim meets budgets in macs and params; {', '.join(unknown)} is not one of them")
    return {limit.metric: limit.absolute(full[limit.metric]) for limit in parsed.limits}


@dataclass(frozen=True, slots=True)
class _Stop:
    drop: int | None
    start: float
    max_increase: float | None
    limits: Mapping[str, float]

    def met(self, dropped: list[Dropped]) -> str:
        """Why to stop now, or nothing."""
        if self.drop is not None and len(dropped) >= self.drop:
            return f"dropped {self.drop} blocks as asked"
        if (
            self.limits
            and dropped
            and all(getattr(dropped[-1], m) <= limit for m, limit in self.limits.items())
        ):
            return "the budget holds"
        return ""

    def too_costly(self, loss: float) -> bool:
        return self.max_increase is not None and not loss - self.start <= self.max_increase


class _Search:
    def __init__(
        self,
        model: nn.Module,
        example: ExampleInputs,
        evaluate: Callable[[nn.Module], float],
        progress: Progress | None,
    ) -> None:
        self._work = copy.deepcopy(model)
        self._example, self._evaluate, self._progress = example, evaluate, progress
        self.blocks: list[Block] = []
        self.dropped: list[Dropped] = []

    def run(self, remaining: list[Block], stop: _Stop) -> str:
        while not stop.met(self.dropped):
            if not remaining:
                if stop.limits:
                    raise BudgetError(
                        "dropping every residual block does not meet the budget", nearest=self._nearest()
                    )
                return "no block is left to drop"
            losses = [self._without(block, i, len(remaining)) for i, block in enumerate(remaining)]
            best = min(range(len(losses)), key=lambda i: (losses[i] != losses[i], losses[i], i))
            if stop.too_costly(losses[best]):
                return f"the next block would raise the loss to {losses[best]:.4g}"
            self._drop(remaining.pop(best), losses[best])
        return stop.met(self.dropped)

    def start(self) -> float:
        """The loss before anything is dropped. Works on a copy: `evaluate` may change modes and statistics."""
        return self._loss(copy.deepcopy(self._work))

    def _loss(self, model: nn.Module) -> float:
        loss = self._evaluate(model)
        try:
            return float(loss)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"evaluate returned {loss!r}: it must return the calibration loss as a number"
            ) from error

    def _nearest(self) -> float | None:
        return float(self.dropped[-1].macs) if self.dropped else None

    def _without(self, block: Block, done: int, total: int) -> float:
        held = self._work.get_submodule(block.path)
        self._work.set_submodule(block.path, nn.Identity())
        try:
            loss = self._loss(self._work)
        finally:
            self._work.set_submodule(block.path, held)
        if self._progress is not None:
            self._progress("trim", done + 1, total, {"loss": loss})
        return loss

    def _drop(self, block: Block, loss: float) -> None:
        self._work.set_submodule(block.path, nn.Identity())
        structure = trace(self._work, self._example)
        cost, none_gone = CostModel(structure), structure.gone({})
        self.blocks.append(block)
        figures = {"macs": cost.macs(none_gone), "params": cost.params(none_gone)}
        self.dropped.append(Dropped(block=block.path, loss=loss, **figures))
