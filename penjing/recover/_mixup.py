"""Mixup: each training example is laid over another one of its batch, and learns from both labels."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from penjing.core import UsageError
from penjing.recover._counting import sample
from penjing.recover._protocols import Batch, Data, SequenceTask, Task
from penjing.recover._training import Training


class Mixed(NamedTuple):
    """share * x_i + (1 - share) * x_j of one batch, where j = partners[i]; `others` are the partners' targets."""

    inputs: Tensor
    targets: Tensor
    others: Tensor
    partners: tuple[int, ...]
    share: float


@dataclass(frozen=True, slots=True)
class MixedTask:
    """`task`, whose training batches may be `Mixed`: their loss is share * loss(targets) + (1 - share) * loss(others).

    A mixed example has no class of its own, so that `targets` of such a batch are None.
    """

    task: Task

    @property
    def name(self) -> str:
        return self.task.name

    def inputs(self, batch: Batch) -> Any:
        return batch.inputs if isinstance(batch, Mixed) else self.task.inputs(batch)

    def targets(self, batch: Batch) -> Any:
        return None if isinstance(batch, Mixed) else self.task.targets(batch)

    def logits(self, outputs: Any) -> Tensor:
        return self.task.logits(outputs)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        if not isinstance(batch, Mixed):
            return self.task.loss(outputs, batch)
        own = self.task.loss(outputs, (batch.inputs, batch.targets))
        other = self.task.loss(outputs, (batch.inputs, batch.others))
        return batch.share * own + (1 - batch.share) * other

    def metric(self, logits: Any, targets: Any, /) -> Any:
        return self.task.metric(logits, targets)


def mixing(task: Task, data: Data, training: Training) -> Task:
    """`task` as training sees it: with mixup a `MixedTask`; a UsageError where examples cannot be mixed."""
    if not training.mixup:
        return task
    batch = sample(data)
    why = (
        "answers by position have no one label to mix"
        if isinstance(task, SequenceTask)
        else _odd(task, batch)
    )
    if why:
        raise UsageError(
            f"mixup ({training.mixup:g}) lays examples over each other, and the task {task.name!r} has others: {why}. "
            "It needs batches (inputs, targets) of one float tensor, such as pictures, and one class number per "
            "example. Use mixup=0."
        )
    return MixedTask(task)


def mixed(batches: Iterable[Batch], training: Training, epoch: int) -> Iterator[Mixed]:
    """Each batch laid over a permutation of itself, as the network and its teacher then see it.

    The share is drawn from Beta(alpha, alpha), one for a batch as in the authors' own code (Zhang et al., "mixup:
    Beyond Empirical Risk Minimization", ICLR 2018, section 2; alpha is `training.mixup`). Permutation and share are
    functions of (seed, epoch, number of the batch), as order and augmentation are of (seed, epoch).
    """
    for number, (inputs, targets) in enumerate(batches):
        text = f"mixup/{training.seed}/{epoch}/{number}"
        drawn = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
        share, rows = float(drawn.beta(training.mixup, training.mixup)), drawn.permutation(len(targets))
        order = torch.from_numpy(rows)
        laid = share * inputs + (1 - share) * inputs[order]
        yield Mixed(laid, targets, targets[order], tuple(rows.tolist()), share)


def _odd(task: Task, batch: Batch) -> str:
    """Why a batch cannot be mixed; empty where it can."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        return f"its batches are no pairs but {type(batch).__name__}"
    inputs, targets = task.inputs(batch), task.targets(batch)
    if inputs is not batch[0] or targets is not batch[1]:
        return "its inputs and targets are not the two parts of a batch"
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        what = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        return f"its inputs are {what}"
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
        return "its targets are not one class number per example"
    if targets.dtype is torch.bool:
        return "its targets are true or false, not one class number per example (give them as integers)"
    return ""
