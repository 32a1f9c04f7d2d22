"""Calibration batches through the network, with gradients or without."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from penjing.core import PenjingError, UsageError
from penjing.core._words import clean
from penjing.criteria._registry import Context
from penjing.structure import buffers_kept, surroundings_off, tensors_of

MAX_BATCHES = 50
PASSED = (PenjingError, torch.OutOfMemoryError)  # say themselves what is wrong


def batches_of(name: str, context: Context, *, loss: bool = True) -> Iterator[Any]:
    """At most 50 calibration batches.

    Raises `UsageError` where there are none, or no loss, and says how to give them.
    """
    if context.calibration is None or (loss and context.loss is None):
        asked = "calibration=batches and loss=callable(outputs, batch)" if loss else "calibration=batches"
        given = ", loss=lambda out, batch: F.cross_entropy(out, batch[1])" if loss else ""
        raise UsageError(
            f"criterion {name!r} needs {asked}: pj.prune(..., criterion={name!r}, calibration=loader{given})"
        )
    sound = isinstance(context.calibration, Iterable) and not isinstance(context.calibration, torch.Tensor)
    if not sound or (loss and not callable(context.loss)):
        raise UsageError("calibration must be an iterable of batches and loss a callable(outputs, batch)")
    return _at_least_one(itertools.islice(filter(_any_examples, context.calibration), MAX_BATCHES))


def _any_examples(batch: Any) -> bool:
    return next((len(t) > 0 for t in tensors_of(batch) if t.dim()), True)


def _at_least_one(batches: Iterator[Any]) -> Iterator[Any]:
    first = next(batches, batches)
    if first is batches:
        raise UsageError(
            "calibration gave no batch with examples: pass a list or a loader, not a generator that was used up"
        )
    return itertools.chain([first], batches)


def loss_of(model: nn.Module, context: Context, batch: Any, number: int) -> torch.Tensor:
    """The loss on one batch. Raises `UsageError` unless it is a finite scalar that depends on the network."""
    assert context.loss is not None
    outputs = run_batch(model, batch, number)
    try:
        loss = context.loss(outputs, batch)
    except PASSED:
        raise
    except Exception as error:
        raise UsageError(
            f"loss(outputs, batch) failed on calibration batch {number} ({type(error).__name__}: {_first(error)}): "
            "check the labels (whole numbers from 0, below the classes), and that the loss takes the network's outputs "
            "and the whole batch, such as lambda out, batch: F.cross_entropy(out, batch[1])"
        ) from error
    if not isinstance(loss, torch.Tensor) or loss.dim() or not loss.requires_grad:
        raise UsageError(
            f"loss(outputs, batch) gave {type(loss).__name__} on calibration batch {number}: it must give a scalar "
            "tensor that depends on the network's parameters, such as F.cross_entropy(outputs, batch[1])"
        )
    if not torch.isfinite(loss):
        raise UsageError(
            f"the loss is {loss.item()} on calibration batch {number}: check the data and the loss"
        )
    return loss


@contextmanager
def gradients(model: nn.Module) -> Iterator[None]:
    """Eval mode with every parameter's gradient on; modes, flags and gradients are put back."""
    able = (p for p in model.parameters() if p.is_floating_point() or p.is_complex())
    flags = [(p, p.requires_grad, p.grad) for p in able]
    for parameter, _, _ in flags:
        parameter.requires_grad_(True)
        parameter.grad = None
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter, flag, grad in flags:
            parameter.requires_grad_(flag)
            parameter.grad = grad


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode outside; buffers come out as they were."""
    modes = [(m, m.training) for m in model.modules()]
    model.eval()
    try:
        with surroundings_off(), buffers_kept(model):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def run_batch(model: nn.Module, batch: Any, number: int | None = None) -> Any:
    """The network's outputs for a batch: a tensor, (inputs, ...) with inputs first, or a dict of keyword arguments.

    Inputs are a tensor, a tuple of arguments or a dict of keyword arguments, as in `pj.trace`. Raises `UsageError` that
    names the batch by its `number` where the network does not take it.
    """
    inputs = inputs_of(batch)
    try:
        if isinstance(inputs, Mapping):
            return model(**inputs)
        several = isinstance(inputs, tuple) and not isinstance(inputs, PackedSequence)
        return model(*inputs) if several else model(inputs)
    except PASSED:
        raise
    except Exception as error:
        raise UsageError(
            f"the network does not take calibration batch {'' if number is None else number} "
            f"({type(error).__name__}: {_first(error)}): a batch is a tensor, (inputs, ...) with the inputs first, or "
            "a dict of keyword arguments, in the shapes and types of example_inputs"
        ) from error


def _first(error: Exception) -> str:
    return clean(str(error).partition("\n")[0])


def inputs_of(batch: Any) -> Any:
    """What `run_batch` gives the network."""
    return batch[0] if isinstance(batch, (tuple, list)) else batch
