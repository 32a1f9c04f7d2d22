"""Batch-norm statistics re-estimated on data."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from penjing.core import UsageError
from penjing.recover._counting import examples as examples_of
from penjing.recover._evaluate import score, select
from penjing.recover._modules import call, device_of, kept_modes, place, tensors_of, write_tensors
from penjing.recover._protocols import Data, Task
from penjing.recover._training import Training, least_batch

BATCH = 128


def batch_norms(model: nn.Module) -> list[_NormBase]:
    """The batch-norm modules that keep running statistics."""
    found = [m for m in model.modules() if isinstance(m, _NormBase) and m.track_running_stats]
    return [
        m
        for m in found
        if m.running_mean is not None and not isinstance(m, nn.modules.instancenorm._InstanceNorm)
    ]


@torch.no_grad()
def reestimate_bn(
    model: nn.Module, batches: Iterable[Any], inputs: Callable[[Any], Any] | None = None
) -> None:
    """Replace every batch norm's running statistics, in place, by their cumulative average over `batches`.

    After pruning the full network's statistics mislead (Li et al., "EagleEye: Fast Sub-net Evaluation for
    Efficient Neural Network Pruning", ECCV 2020, section 3.3). Weights do not change; dropout is off; modes
    and momenta come out as they were. `inputs` takes the model's inputs out of a batch (default: its first
    part, or the batch itself). Every batch weighs the same. A batch norm cannot tell padding from data:
    padded positions enter its statistics, as they do in training; batches of one length have none. No
    batches: UsageError, and nothing is changed; an error on the way leaves the old statistics.
    """
    norms = batch_norms(model)
    if not norms:
        return
    before = {name: t.clone() for name, t in tensors_of(model).items()}
    momenta = [norm.momentum for norm in norms]
    with kept_modes(model):
        try:
            _accumulate(model, norms, batches, inputs or _first)
        except BaseException:
            write_tensors(model, before)
            raise
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum


@contextmanager
def least_momentum(model: nn.Module, least: float) -> Iterator[None]:
    """Batch norms average with a momentum of at least `least` inside, and with their own again outside."""
    norms = batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.momentum is not None:
            norm.momentum = max(norm.momentum, least)
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _accumulate(model: nn.Module, norms: list[_NormBase], batches: Iterable[Any], inputs: Callable) -> None:
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    seen, device = 0, device_of(model)
    for batch in batches:
        try:
            call(model, inputs(place(batch, device)))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                f"Batch {seen + 1} for reestimate_bn gives a batch norm one value per channel, which has no variance. "
                "Pass batches of two and more examples, such as those of a loader with drop_last=True."
            ) from error
        seen += 1
    if not seen:
        raise UsageError(
            "reestimate_bn got no batches: pass at least one (batches are consumed; pass a fresh list)."
        )


def adapt_bn(model: nn.Module, task: Task, data: Data, training: Training, *, examples: int) -> None:
    """`reestimate_bn` on `examples` random training examples without augmentation; 0 does nothing. A last batch of less
    than half is left out, as in training.
    """
    least = least_batch(data.n("train"), BATCH)
    if not examples or data.n("train") < least:
        return
    memory_format = torch.channels_last if training.channels_last else None
    drawn = islice(
        data.batches("train", BATCH, seed=training.seed, shuffle=True), math.ceil(examples / BATCH)
    )
    batches = (batch for batch in drawn if examples_of(task.targets(batch)) >= least)
    reestimate_bn(model, (place(batch, device_of(model), memory_format) for batch in batches), task.inputs)


def settle_bn(
    model: nn.Module, task: Task, data: Data, training: Training, *, examples: int
) -> tuple[dict[str, float], dict[str, float]]:
    """`adapt_bn`, taken back unless the selection split gets better.

    Returns the selection figures before it and those of the model as it is left.
    """
    before = select(model, task, data, training)
    if not examples or not batch_norms(model):
        return before, before
    own = {name: t.clone() for name, t in tensors_of(model).items()}
    try:
        adapt_bn(model, task, data, training, examples=examples)
        after = select(model, task, data, training)
    except BaseException:
        write_tensors(model, own)
        raise
    if score(after, task, training.monitor) > score(before, task, training.monitor):
        return before, after
    write_tensors(model, own)
    return before, before


def _first(batch: Any) -> Any:
    return batch[0] if isinstance(batch, tuple | list) else batch
