"""The bench that candidates are made and tried on: cut, refitted, a little recovered, asked."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from penjing.core import DropBlock, Plan, PlanError, Recipe
from penjing.criteria import Context, Score, loss_units, prepare_criterion
from penjing.measure import count_macs, count_params
from penjing.pipeline._adjust import Found, adjusted, look, named
from penjing.pipeline._candidates import Candidate
from penjing.pipeline._job import Inputs
from penjing.pipeline._shrink import calibration, calibration_loss, prune_to, still_there
from penjing.recover import Progress, Training, evaluate, rebuild, recover_briefly, settle_bn
from penjing.search import SharedTables, trim
from penjing.structure import fingerprint, merge_weights, trace_merged
from penjing.surgery import apply


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A candidate's network, and the plan that leads there from the whole one."""

    slim: nn.Module
    plan: Plan
    start: nn.Module  # what units were removed from, by the plan `last`
    last: Plan
    latency: float | None = None  # predicted, milliseconds


@dataclass(kw_only=True)
class Bench:
    """What candidates share is made once: scores of units by network and criterion, the walk that drops blocks, tables
    of times.
    """

    inputs: Inputs
    whole: nn.Module
    seed: int
    scores: dict[tuple[str, str], Score] = field(default_factory=dict)
    known: set[tuple[str, int, int]] = field(default_factory=set)
    found: dict[int, Found] = field(default_factory=dict)
    recall: Callable[[str, Callable[[], Mapping[str, Any]]], Mapping[str, Any]] = lambda _, make: make()
    seconds: float = math.inf  # of a walk over adjustments
    tell: Progress | None = None
    deepest: int = 0
    walk: Plan | None = None
    tables: SharedTables = field(default_factory=SharedTables)

    def cut(self, candidate: Candidate) -> Cut:
        """The candidate's network within the budget, as the cut leaves it.

        Raises `PenjingError` where it cannot be.
        """
        recipe = self.inputs.recipe
        inputs = self.inputs.settled(_as_written(recipe, candidate))
        start, done = self._start(candidate.blocks)
        if candidate.edits:
            start, own = adjusted(self.inputs, start, self.adjustments(candidate.blocks), candidate.edits)
            done = own if done is None else done.then(own)
        slim, plan = prune_to(
            inputs,
            start,
            self.whole,
            self._shared(candidate.criterion, start),
            self._examples,
            candidate.protect if done is None else still_there(start, candidate.protect),
            tables=self.tables,
        )
        self.known.add((candidate.criterion, candidate.blocks, candidate.edits))
        whole = plan if done is None else done.then(plan)
        return Cut(slim=slim, plan=whole, start=start, last=plan, latency=self.tables.predicted)

    def adjustments(self, blocks: int = 0) -> Found:
        """The walk over what can be adjusted in the network without so many blocks."""
        if blocks not in self.found:
            start, _ = self._start(blocks)
            asked = self.inputs.recipe.steps.adjust.seconds
            record = self.recall(
                f"adjustments-{blocks}",
                lambda: look(self.inputs, start, seconds=asked or self.seconds, progress=self.tell).record,
            )
            self.found[blocks] = Found(record=record)
        return self.found[blocks]

    def refit(self, cut: Cut) -> None:
        """The cut network refitted in place where that helps, and its batch norms re-estimated."""
        self._rebuild(cut.slim, cut.start, cut.last)
        examples = min(self.inputs.recipe.steps.recover.bn_examples, self._examples)
        how = Training(epochs=1, seed=self.seed)
        settle_bn(cut.slim, self.inputs.task(), self.inputs.data, how, examples=examples)

    def scored(self, candidate: Candidate) -> bool:
        """Whether the scores of its criterion are known for the network that it cuts."""
        return (candidate.criterion, candidate.blocks, candidate.edits) in self.known

    def blank(self, plan: Plan) -> nn.Module:
        """The structure that `plan` leaves, values those of the whole network."""
        return apply(self.whole, plan)

    def train(
        self, slim: nn.Module, plan: Plan, *, steps: int, loss: str, progress: Progress | None = None
    ) -> dict[str, Any]:
        """`slim` after `steps` steps of the recipe's recovery with `loss`; returns what was chosen of it."""
        left_out = {
            "reconstruct",
            "reconstruct_examples",
            "epochs",
            "cache_mb",
            "bn_examples",
            "early_stopping",
        }
        options = self.inputs.recipe.steps.recover.model_dump(exclude=left_out)
        options |= {"loss": loss, "augment": True, "seed": self.seed, "plan": plan}
        options |= {"bn_examples": min(self.inputs.recipe.steps.recover.bn_examples, self._examples)}
        task, data = self.inputs.task(), self.inputs.data
        return recover_briefly(slim, self.whole, task, data, steps=steps, progress=progress, **options)

    def ask(self, model: nn.Module) -> Mapping[str, Any]:
        """Figures and answers on the selection split."""
        return evaluate(model, self.inputs.task(), self.inputs.data, "selection", 256)

    def sizes(self, model: nn.Module) -> dict[str, int]:
        return {"macs": count_macs(model, self.inputs.example(1)), "params": count_params(model)}

    @property
    def _examples(self) -> int:
        return self.inputs.recipe.steps.choose.examples

    def _rebuild(self, slim: nn.Module, wanted: nn.Module, plan: Plan) -> None:
        """As far as it helps: what cannot be refitted is compared as it is."""
        options = self.inputs.recipe.steps.recover
        if options.reconstruct is False:
            return
        how: dict[str, Any] = {"when": options.reconstruct, "seed": self.seed}
        how["examples"] = min(options.reconstruct_examples, self._examples)
        try:
            rebuild(slim, wanted, plan, self.inputs.task(), self.inputs.data, **how)
        except PlanError:
            if options.reconstruct is True:
                raise

    def _start(self, blocks: int) -> tuple[nn.Module, Plan | None]:
        """The whole network without so many blocks, refitted, and with the adjustments that the recipe names; and the
        plan that leads there.
        """
        start, done = self.whole, None
        if blocks:
            done = self._drop(blocks)
            start = apply(self.whole, done)
            self._rebuild(start, self.whole, done)
        if self.inputs.recipe.steps.adjust.do:
            start, own = named(self.inputs, start)
            done = own if done is None else done.then(own)
        return start, done

    def _drop(self, blocks: int) -> Plan:
        """The first `blocks` drops of a walk that goes as deep as any candidate does."""
        if self.walk is None:
            options = self.inputs.recipe.steps
            loss = calibration_loss(self.inputs, min(options.trim.calibration, self._examples))
            _, self.walk, _ = trim(self.whole, self.inputs.example(), evaluate=loss, drop=self.deepest)
        drops = [edit for edit in self.walk.edits if isinstance(edit, DropBlock)]
        return replace(self.walk, edits=tuple(edit for edit in self.walk.edits if edit not in drops[blocks:]))

    def _shared(self, criterion: str, model: nn.Module) -> Score:
        """The scores of `criterion`, worked out once for every structure that it is asked of."""
        key = criterion, fingerprint(model)
        if key not in self.scores:
            merged, _ = merge_weights(copy.deepcopy(model))
            context = Context(
                calibration=calibration(self.inputs, self._examples),
                loss=self.inputs.task().loss,
                seed=self.inputs.recipe.seed,
                structure=trace_merged(merged, self.inputs.example(1)),
            )
            self.scores[key] = _remembered(prepare_criterion(criterion, merged, context), criterion)
        return self.scores[key]


def _remembered(score: Score, criterion: str) -> Score:
    """`score`, asked once for every group, with the units that the criterion has."""
    known: dict[str, Any] = {}

    def told(group: Any, model: nn.Module) -> Any:
        if group.name not in known:
            known[group.name] = score(group, model)
        return known[group.name]

    told.__dict__.update(score.__dict__ if hasattr(score, "__dict__") else {})
    told.__dict__["in_loss"] = loss_units(criterion)
    return told


def _as_written(recipe: Recipe, candidate: Candidate) -> Recipe:
    """`recipe` with what the candidate does."""
    steps = recipe.model_dump()["steps"]
    for step, options in candidate.options().items():
        steps[step] |= options
    return Recipe.model_validate({**recipe.model_dump(), "steps": steps})
