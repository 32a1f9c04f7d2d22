"""One pass over a split without learning."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import DataError, UsageError
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._protocols import Data, Task
from penjing.recover._training import Training


@torch.no_grad()
def evaluate(
    model: nn.Module,
    task: Task,
    data: Data,
    split: str,
    batch_size: int = 256,
    *,
    memory_format: torch.memory_format | None = None,
) -> Mapping[str, Any]:
    """Loss, the task's metrics, predictions and targets of `model` on `split`, in one pass in eval mode.

    Returns {"loss": mean task loss, whatever `task.metric` gives ("accuracy" as a fraction, "macro_recall",
    "per_class"), "predictions": argmax per example, "targets"}; tensors lie on the CPU in the split's order.
    The accuracy is of this split alone and says nothing of its uncertainty. The model's modes come out as
    they were. An empty split raises DataError.
    """
    device, loss, count = device_of(model), 0.0, 0
    logits: list[Tensor] = []
    targets: list[Tensor] = []
    with kept_modes(model):
        model.eval()
        for raw in data.batches(split, batch_size):
            batch = place(raw, device, memory_format)
            outputs = call(model, task.inputs(batch))
            logits.append(task.logits(outputs).float().cpu())
            targets.append(task.targets(batch).cpu())
            loss += float(task.loss(outputs, batch)) * len(targets[-1])
            count += len(targets[-1])
    if not count:
        raise DataError(
            f"The split {split!r} is empty: nothing to evaluate. Give it examples with splits=(...)."
        )
    every, truth = torch.cat(logits), torch.cat(targets)
    figures = task.metric(every, truth)
    return {**figures, "loss": loss / count, "predictions": every.argmax(-1), "targets": truth}


def select(model: nn.Module, task: Task, data: Data, training: Training) -> dict[str, float]:
    """The scalar figures of `evaluate` on the selection split."""
    memory_format = torch.channels_last if training.channels_last else None
    figures = evaluate(model, task, data, "selection", training.eval_batch_size, memory_format=memory_format)
    return {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}


def score(figures: Mapping[str, float], monitor: str) -> tuple[float, ...]:
    """The order of epochs: larger is better, a tie goes to the smaller loss, NaN is worse than anything."""
    if monitor not in figures:
        known = ", ".join(sorted(figures))
        raise UsageError(f"monitor {monitor!r} is none of the task's metrics; choose one of {known}.")
    loss = figures["loss"] if math.isfinite(figures["loss"]) else math.inf
    return (-loss,) if monitor == "loss" else (float(figures[monitor]), -loss)
