"""What a run would do and about how long it would take, from a few timed batches."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from penjing.core import Budget, Recipe
from penjing.measure import count_macs, count_params
from penjing.pipeline._answer import first_tensor
from penjing.pipeline._job import Inputs
from penjing.pipeline._members import by_name
from penjing.pipeline._rehearse import rehearse
from penjing.pipeline._rounds import epochs_in_all, rounds_of
from penjing.pipeline._smaller import epochs_of_rival, looks_for_rival
from penjing.pipeline._steps import steps_of
from penjing.recover import call, place

BATCH = 32
FIXED = {"base": 2.0, "prune": 6.0, "choose": 20.0, "save": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of one example: `train` forward and backward, `look` forward alone; and examples by split.

    `share` is the share of the whole network's time that the slim one is taken to need.
    """

    train: float
    look: float
    counts: Mapping[str, int]
    share: float

    def training(self, epochs: int, *, share: float = 1.0, taught: bool = False) -> float:
        """Seconds of `epochs` epochs of a network that takes `share` of the whole one's time."""
        step = self.train * share + (self.look if taught else 0.0)
        return epochs * (self.counts["train"] * step + self.counts["selection"] * self.look * share)


def predict(recipe: Recipe, *, trust: bool = False, inputs: Inputs | None = None) -> dict[str, float]:
    """Predicted seconds of every step of `recipe`, in order; an estimate within a factor of about two."""
    given = inputs or Inputs(recipe=recipe, trust=trust)
    if inputs is None:
        rehearse(given)
    pace, steps = _pace(given), recipe.steps
    counts = pace.counts
    slim = pace.training(steps.recover.epochs, share=pace.share, taught=True)
    rival = pace.training(epochs_in_all(recipe), share=pace.share, taught=True)
    between = pace.training(steps.prune.between, share=(1 + pace.share) / 2, taught=True)
    probe = (counts["train"] + counts["selection"]) * pace.look if steps.transfer.probe_epochs else 0.0
    rows = 4 + bool(recipe.teacher) + steps.controls.random + looks_for_rival(recipe)
    of_layers = not by_name(recipe.model) and steps.controls.smaller == "auto"
    against = epochs_of_rival(recipe, of_layers=of_layers)
    early = [one for one in rounds_of(recipe) if not one.last]
    seconds = {
        **{one.prune: FIXED["prune"] for one in early},
        **{one.recover: between for one in early},
        **FIXED,
        "transfer": probe + pace.training(steps.transfer.epochs),
        "teacher": probe + pace.training(steps.transfer.epochs),
        "distil": pace.training(steps.distil.epochs, taught=True),
        "trim": 10 * steps.trim.blocks * pace.look * steps.trim.calibration,
        "recover": slim,
        "tune": steps.tune.seconds or steps.tune.trials * steps.tune.share * slim,
        "sparsify": pace.training(steps.sparsify.epochs, share=pace.share, taught=True),
        "smaller:choose": FIXED["choose"],
        "smaller:transfer": 0.0 if of_layers else (probe + pace.training(steps.transfer.epochs)) * pace.share,
        "control:smaller": pace.training(against, share=pace.share, taught=True),
        "control:scratch": rival,
        "control:random": rival + FIXED["prune"],
        "measure": rows
        * pace.look
        * (counts["certification"] + 2 * steps.measure.repeats * steps.measure.batch_sizes[0]),
    }
    return {step.name: seconds[step.name] for step in steps_of(recipe)}


def _pace(inputs: Inputs) -> Pace:
    recipe = inputs.recipe
    with torch.random.fork_rng():
        model = inputs.source(weights="none", headed=True).model.to(recipe.device)
    raw, task = next(iter(inputs.data.batches("train", BATCH))), inputs.task()
    batch = place(raw, torch.device(recipe.device), torch.channels_last)
    examples = len(first_tensor(batch))
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def train() -> None:
        model.train()
        task.loss(call(model, task.inputs(batch)), batch).backward()

    @torch.no_grad()
    def look() -> None:
        model.eval()
        F.softmax(task.logits(call(model, task.inputs(batch))), dim=-1).sum().item()

    return Pace(
        train=_seconds(train) / examples,
        look=_seconds(look) / examples,
        counts={split: inputs.data.n(split) for split in ("train", "selection", "certification")},
        share=0.3 + 0.7 * _share(inputs, model),
    )


def _share(inputs: Inputs, model: nn.Module) -> float:
    """The share of the whole network that the budget asks for."""
    sizes = {"macs": count_macs(model, inputs.example(1)), "params": count_params(model)}
    limits = Budget.parse(inputs.recipe.budget).limits
    shares = [
        limit.number if limit.relative else limit.absolute(sizes[limit.metric]) / sizes[limit.metric]
        for limit in limits
        if limit.relative or limit.metric in sizes
    ]
    return min(1.0, 1.0, *shares)


def _seconds(act: Callable[[], None]) -> float:
    act()
    begun = time.perf_counter()
    act()
    act()
    return (time.perf_counter() - begun) / 2
