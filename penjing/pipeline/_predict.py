"""What a run would do and about how long it would take, from a few timed batches."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from penjing.core import Budget, Recipe
from penjing.measure import count_macs, count_params
from penjing.pipeline._job import Inputs
from penjing.pipeline._steps import steps_of

FIXED = {"base": 2.0, "prune": 6.0, "save": 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds of one batch of the recipe's size: `train` forward and backward, `look` forward alone."""

    train: float
    look: float
    train_batches: float
    selection_batches: float
    certification_batches: float
    share: float

    def training(self, epochs: int, *, share: float = 1.0, taught: bool = False) -> float:
        """Seconds of `epochs` epochs of a network that takes `share` of the whole one's time."""
        step = self.train * share + (self.look if taught else 0.0)
        return epochs * (self.train_batches * step + self.selection_batches * self.look * share)


def predict(recipe: Recipe, *, trust: bool = False, inputs: Inputs | None = None) -> dict[str, float]:
    """Predicted seconds of every step of `recipe`, in order; an estimate within a factor of about two."""
    given = inputs or Inputs(recipe=recipe, trust=trust)
    pace, steps = _pace(given), recipe.steps
    slim = pace.training(steps.recover.epochs, share=pace.share, taught=True)
    probe = (pace.train_batches + pace.selection_batches) * pace.look if steps.transfer.probe_epochs else 0.0
    rows = 4 + bool(recipe.teacher) + steps.controls.random
    seconds = {
        **FIXED,
        "transfer": probe + pace.training(steps.transfer.epochs),
        "teacher": probe + pace.training(steps.transfer.epochs),
        "distil": pace.training(steps.distil.epochs, taught=True),
        "trim": 20 * steps.trim.blocks * pace.look * steps.trim.calibration / recipe.batch_size,
        "recover": slim,
        "control:scratch": slim,
        "control:random": slim + FIXED["prune"],
        "measure": rows * pace.look * (pace.certification_batches + 2 * steps.measure.repeats),
    }
    return {step.name: seconds[step.name] for step in steps_of(recipe)}


def _pace(inputs: Inputs) -> Pace:
    recipe, data = inputs.recipe, inputs.data
    with torch.random.fork_rng():
        model = inputs.source(weights="none", num_classes=inputs.classes).model.to(recipe.device)
    batch = inputs.example(recipe.batch_size).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(recipe.batch_size, dtype=torch.int64, device=batch.device)
    task = inputs.task()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def train() -> None:
        model.train()
        task.loss(model(batch), (batch, targets)).backward()

    @torch.no_grad()
    def look() -> None:
        model.eval()
        F.softmax(task.logits(model(batch)), dim=-1).sum().item()

    counts = [data.n(split) / recipe.batch_size for split in ("train", "selection", "certification")]
    return Pace(
        train=_seconds(train),
        look=_seconds(look),
        train_batches=counts[0],
        selection_batches=counts[1],
        certification_batches=counts[2],
        share=0.3 + 0.7 * _share(inputs, model),
    )


def _share(inputs: Inputs, model: nn.Module) -> float:
    """The share of the whole network that the budget asks for."""
    sizes = {"macs": count_macs(model, inputs.example(1)), "params": count_params(model)}
    limits = Budget.parse(inputs.recipe.budget).limits
    return min(1.0, *(limit.absolute(sizes[limit.metric]) / sizes[limit.metric] for limit in limits))


def _seconds(act: Callable[[], None]) -> float:
    act()
    begun = time.perf_counter()
    act()
    act()
    return (time.perf_counter() - begun) / 2
