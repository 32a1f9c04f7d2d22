"""The inner loop: one epoch of steps, usable from a loop of one's own."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from penjing.core import TrainingError
from penjing.recover._modules import device_of, place
from penjing.recover._protocols import Batch
from penjing.recover._together import processes, size_of, sum_gradients, weighed


def train_epoch(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Callable[[Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    set_step: Callable[[int], None] | None = None,
    first_step: int = 0,
    clip: float | None = None,
    bf16: bool = False,
    weight: Callable[[Batch], float] = size_of,
    memory_format: torch.memory_format | None = None,
    stage: str = "training",
    epoch: int = 1,
) -> Iterator[float]:
    """Train on every batch and yield its loss, after the optimizer's step.

    `loss` gets a batch that lies on the model's device and returns a scalar. `set_step(step)` runs before
    each step; set learning rates there. The caller chooses the model's mode. A loss that is not finite raises
    TrainingError before the weights are touched. Where several processes train together, `batches` are this one's
    shares, and `weight` says how many terms the mean loss of a share is taken over.
    """
    device = device_of(model)
    clipped = [p for group in optimizer.param_groups for p in group["params"]] if clip else []
    for step, raw in enumerate(batches, first_step):
        if set_step is not None:
            set_step(step)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            value = loss(place(raw, device, memory_format))
        if processes() == 1:
            figure = value.item()
        else:
            value, figure = weighed(value, weight(raw))
        if not math.isfinite(figure):
            rate, number = optimizer.param_groups[0]["lr"], step - first_step
            raise TrainingError(not_finite(stage, epoch, number, step, figure, rate))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        if processes() > 1:
            sum_gradients(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(clipped, clip)
        optimizer.step()
        yield figure


def not_finite(stage: str, epoch: int, batch: int, step: int, figure: float, rate: float) -> str:
    """The message of a loss that left the numbers; `batch` and `step` are counted from 0."""
    return (
        f"The loss of {stage} became {figure} at epoch {epoch}, batch {batch + 1} (step {step + 1}), with lr "
        f"{rate:.2g}. The model was put back to its last good state. Use a smaller lr, clip=1.0, "
        "or look for inputs or targets that are not finite."
    )
