"""One pass over a split without learning."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import DataError, UsageError
from penjing.recover._counting import classes_last, terms
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._protocols import Batch, Data, SequenceTask, Task
from penjing.recover._together import from_first, rank
from penjing.recover._training import Training
from penjing.tasks import headline

SMALLER = ("loss", "nll", "wer", "cer")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    data: Data,
    split: str,
    batch_size: int = 256,
    *,
    memory_format: torch.memory_format | None = None,
    logits: bool = False,
) -> Mapping[str, Any]:
    """Loss, the task's metrics, predictions and targets of `model` on `split`, in one pass in eval mode.

    Returns {"loss": mean task loss, whatever `task.metric` gives ("accuracy" as a fraction, "macro_recall",
    "per_class"), "predictions": argmax per example, "targets"}; tensors lie on the CPU. For a sequence task
    predictions are its answers and targets its truths, tuples with one entry per example. All come in the split's
    order, also from data that is served by length (`bucketed`). The loss is the mean over what the task's own loss
    averages: examples, or the positions that have a class. The accuracy is of this split alone and says nothing of
    its uncertainty. With `logits` those of classes are there, too, [n, classes]. The model's modes come out as they
    were. An empty split raises DataError.
    """
    device, loss, count = device_of(model), 0.0, 0
    order, batches = _served(data, split, batch_size)
    found: list[tuple[Any, Any]] = []
    with kept_modes(model):
        model.eval()
        for raw in batches:
            batch = place(raw, device, memory_format)
            outputs = call(model, task.inputs(batch))
            found.append(_answers(task, outputs, batch))
            weight = terms(task, batch)
            loss += float(task.loss(outputs, batch)) * weight if weight else 0.0
            count += weight
    if not any(len(truths) for _, truths in found):
        raise DataError(
            f"The split {split!r} is empty: nothing to evaluate. Give it examples with splits=(...)."
        )
    given, truth = (_ordered(parts, order) for parts in zip(*found, strict=True))
    told = classes_last(given, truth).argmax(-1) if isinstance(given, Tensor) else given
    kept = {"logits": given} if logits and isinstance(given, Tensor) else {}
    metrics = {**task.metric(given, truth), "loss": loss / max(1, count)}
    return {**metrics, "predictions": told, "targets": truth, **kept}


def _served(data: Data, split: str, batch_size: int) -> tuple[Tensor | None, Iterable[Batch]]:
    """The split's batches, and which example of the split each row in turn is; None: they come in order."""
    bucketed = getattr(data, "bucketed", None)
    return bucketed(split, batch_size) if bucketed else (None, data.batches(split, batch_size))


def _answers(task: Task, outputs: Any, batch: Batch) -> tuple[Any, Any]:
    """What `task.metric` will get of one batch: answers and truths, or logits and targets."""
    logits = task.logits(outputs).float()
    if isinstance(task, SequenceTask):
        return task.answers(logits, batch), task.truths(batch)
    targets = task.targets(batch)
    if not isinstance(targets, Tensor):
        raise UsageError(
            f"targets() of the task {task.name!r} gives {type(targets).__name__}, not a tensor with one row per "
            "example. Give classes as numbers, such as torch.tensor([names.index(label) for label in labels])."
        )
    return logits.cpu(), targets.cpu()


def _ordered(parts: Sequence[Any], order: Tensor | None) -> Any:
    """The parts of all batches as one, row i of them at place order[i]."""
    if isinstance(parts[0], Tensor):
        rows = torch.cat(list(parts))
        return rows if order is None else torch.empty_like(rows).index_copy_(0, order, rows)
    served = [row for part in parts for row in part]
    if order is None:
        return tuple(served)
    places = dict(zip(order.tolist(), served, strict=True))
    return tuple(places[i] for i in range(len(served)))


@dataclass(frozen=True, slots=True)
class Look:
    """Scalar figures on the selection split, and per example whether it was right; None where accuracy does not
    decide.
    """

    figures: dict[str, float]
    right: Tensor | None


def look(model: nn.Module, task: Task, data: Data, training: Training) -> Look:
    """What `model` does on the selection split; of several processes the first looks."""
    return from_first(None if rank() else _look(model, task, data, training))


def _look(model: nn.Module, task: Task, data: Data, training: Training) -> Look:
    memory_format = torch.channels_last if training.channels_last else None
    found = evaluate(model, task, data, "selection", training.eval_batch_size, memory_format=memory_format)
    told, truth, decides = found["predictions"], found["targets"], training.monitor or headline(task)[0]
    single = isinstance(told, Tensor) and isinstance(truth, Tensor) and told.shape == truth.shape
    return Look(
        figures={name: float(value) for name, value in found.items() if isinstance(value, int | float)},
        right=(told == truth).flatten() if single and decides == "accuracy" else None,
    )


def select(model: nn.Module, task: Task, data: Data, training: Training) -> dict[str, float]:
    """The scalar figures of `evaluate` on the selection split."""
    return look(model, task, data, training).figures


def within_noise(first: Tensor | None, second: Tensor | None) -> bool:
    """True where `first` (bool per example: answered rightly) is not better than `second` by more than one standard
    error: b - c <= sqrt(b + c), b examples being right in the first alone and c in the second alone (McNemar,
    Psychometrika 1947). It does not show that they are equally good. Where either is unknown, False.

    >>> twice = torch.tensor([True, True, False, False])
    >>> within_noise(twice, torch.tensor([True, False, False, False])), within_noise(twice, ~twice)
    (True, True)
    >>> within_noise(twice, torch.zeros(4, dtype=torch.bool))
    False
    """
    if first is None or second is None:
        return False
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    return b - c <= math.sqrt(b + c)


def score(figures: Mapping[str, float], task: Task, monitor: str | None = None) -> tuple[float, ...]:
    """The order of epochs: larger is better, a tie goes to the smaller loss, NaN is worse than anything.

    `monitor` is the metric that decides; None is the task's headline, (name, larger is better), or accuracy.
    Of other metrics loss, nll, wer and cer are better when smaller.
    """
    name, larger = headline(task)
    if monitor is not None and monitor != name:
        name, larger = monitor, monitor not in SMALLER
    if name not in figures:
        known = ", ".join(sorted(figures))
        raise UsageError(f"monitor {name!r} is none of the task's metrics; choose one of {known}.")
    value = float(figures[name]) * (1 if larger else -1)
    loss = figures["loss"] if math.isfinite(figures["loss"]) else math.inf
    return (value if math.isfinite(value) else -math.inf, -loss)
