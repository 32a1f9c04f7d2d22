"""A recovery of a few steps, to compare what several cuts come back to."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from torch import nn

from penjing.core import Plan
from penjing.recover._bn import adapt_bn
from penjing.recover._defaults import RECOVER
from penjing.recover._distil import Asked, distillation_job
from penjing.recover._engine import run_blindly
from penjing.recover._protocols import Batch, Data, Progress, Task
from penjing.recover._training import training_with


@dataclass(frozen=True, slots=True)
class Few:
    """`data` with `count` training examples at most: the first of each epoch's order."""

    data: Data
    count: int

    def n(self, split: str) -> int:
        own = self.data.n(split)
        return min(own, self.count) if split == "train" else own

    def batches(self, split: str, batch_size: int, **how: Any) -> Iterable[Batch]:
        served = self.data.batches(split, batch_size, **how)
        return islice(served, max(1, self.count // batch_size)) if split == "train" else served

    def __getattr__(self, name: str) -> Any:
        return getattr(self.data, name)


def recover_briefly(
    slim: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    data: Data,
    *,
    steps: int,
    plan: Plan | None = None,
    bn_examples: int = RECOVER.bn_examples,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """`steps` steps of `recover` in place, with the whole schedule in them, at most one epoch.

    Returns what was chosen of the distillation (loss, temperature, weight) and how many "steps" it took.

    No epoch is chosen: the network stays as the last step leaves it, batch norms re-estimated on `bn_examples`, so the
    selection split is not looked at. Options are those of `recover`.
    """
    terms = {
        name: options.pop(name, getattr(RECOVER, name))
        for name in ("loss", "temperature", "weight", "hidden")
    }
    more = {name: options.pop(name, getattr(RECOVER, name)) for name in ("guide", "guide_alpha")}
    drawn = ("hidden_layers", "attention", "attention_layer")
    layers = {name: options.pop(name, getattr(RECOVER, name)) for name in drawn}
    training = training_with(RECOVER.training, {**options, "epochs": 1, "ema": 0.0})
    count = min(data.n("train"), max(1, steps) * training.batch_size)
    asked = Asked(terms=terms, more=more, layers=layers, plan=plan, cache=None, say=None)
    with distillation_job("recover", slim, teacher, task, data, training, asked, None) as (job, _):
        chosen = {
            name: job.settings[name] for name in ("loss", "temperature", "weight") if name in job.settings
        }
        run_blindly(replace(job, data=Few(data, count)), progress=progress)
    adapt_bn(slim, task, data, training, examples=bn_examples)
    return {**chosen, "steps": max(1, count // training.batch_size)}
