"""Example inputs: a tensor, a tuple (positional) or a dict (keywords), as every room takes them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import UsageError

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with every tensor inside its tuples, lists and mappings replaced; other leaves as they are."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(change, item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(change, item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(change, item) for item in value)
    return value


def tensors_of(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(note, value)
    return found


def as_call(example_inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments of one forward."""
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, tuple):
        return example_inputs, {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    raise UsageError(
        "example inputs are a tensor, a tuple (args) or a dict (kwargs), "
        f"not a {type(example_inputs).__name__}: give one alternative, like torch.randn(1, 3, 224, 224)"
    )


def batch_of(example_inputs: ExampleInputs) -> int:
    """Dim 0 of the first tensor that has dims; 1 where there is none."""
    as_call(example_inputs)
    return next((tensor.shape[0] for tensor in tensors_of(example_inputs) if tensor.dim()), 1)


def rebatch(example_inputs: ExampleInputs, batch_size: int | None) -> ExampleInputs:
    """Copies of the inputs with `batch_size` examples: dim 0 of every tensor batched alike is repeated.

    A tensor whose dim 0 differs from the first tensor's is no batch and stays as it is. None keeps the size.
    """
    now = batch_of(example_inputs)
    if batch_size is None or batch_size == now:
        return map_tensors(torch.clone, example_inputs)
    if batch_size < 1:
        raise UsageError(f"a batch holds at least 1 example, got batch_size={batch_size}")
    if now == 0:
        raise UsageError("the example inputs hold no example: give at least one")

    def repeat(tensor: Tensor) -> Tensor:
        if not tensor.dim() or tensor.shape[0] != now:
            return tensor.clone()
        return torch.cat([tensor] * -(-batch_size // now))[:batch_size]

    return map_tensors(repeat, example_inputs)


def forward(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """One forward; what it raises comes back as a UsageError that keeps the cause."""
    args, kwargs = as_call(example_inputs)
    try:
        return model(*args, **kwargs)
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_of(example_inputs))
        raise UsageError(
            f"{type(model).__name__} does not run on the example inputs (shapes {shapes}): {error}\n"
            "Give inputs that model(*args) or model(**kwargs) takes"
        ) from error
