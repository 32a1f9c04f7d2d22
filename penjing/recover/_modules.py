"""Calling modules, moving batches and keeping a module's modes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def call(model: nn.Module, inputs: Any) -> Any:
    """`model` on a tensor, a tuple (args) or a dict (kwargs)."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter or buffer lies; the CPU for a model with none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def place(batch: Any, device: torch.device, memory_format: torch.memory_format | None = None) -> Any:
    """The batch on `device`; four-dimensional tensors in `memory_format` when one is given."""
    if isinstance(batch, Tensor):
        if batch.ndim == 4 and memory_format is not None:
            return batch.to(device, memory_format=memory_format, non_blocking=True)
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: place(value, device, memory_format) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(place(value, device, memory_format) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(place(value, device, memory_format) for value in batch)
    return batch


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by name (non-persistent buffers too), detached and live."""
    return {name: t.detach() for name, t in (*model.named_parameters(), *model.named_buffers())}


@torch.no_grad()
def write_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into the model's own parameters and buffers, in place; the names must be the same."""
    for name, own in tensors_of(model).items():
        own.copy_(tensors[name])


@contextmanager
def kept_modes(*models: nn.Module) -> Iterator[None]:
    """Whatever happens inside, every module comes out in the train or eval mode it had."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def kept_gradients_flags(model: nn.Module) -> Iterator[None]:
    """Every parameter comes out with the requires_grad it had."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def channels_last(*models: nn.Module, on: bool) -> Iterator[torch.memory_format | None]:
    """Weights in channels_last inside, in their own layout again outside; yields the format for inputs.

    On a CPU, depthwise networks train about twice as fast this way. Values do not change, only their order in
    memory; the last digit of a convolution may.
    """
    if not on:
        yield None
        return
    strides = [(t, t.stride()) for model in models for t in (*model.parameters(), *model.buffers())]
    for model in models:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    try:
        yield torch.channels_last
    finally:
        for tensor, stride in strides:
            if tensor.stride() != stride:
                tensor.data = torch.empty_strided(
                    tensor.shape, stride, dtype=tensor.dtype, device=tensor.device
                ).copy_(tensor.data)
