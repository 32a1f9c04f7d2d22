"""How long an example takes, from a few timed batches."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from penjing.core import Budget
from penjing.core._choose_options import ChooseOptions
from penjing.measure import count_macs, count_params
from penjing.pipeline._answer import first_tensor
from penjing.pipeline._job import Inputs
from penjing.recover import call, place

BATCH = 32


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


def limit_of(options: ChooseOptions, recovery: float) -> float:
    """Seconds that trying methods may take, where the recovery is predicted to take `recovery` seconds."""
    return recovery * options.share if options.seconds is None else options.seconds


def pace_of(inputs: Inputs) -> Pace:
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
