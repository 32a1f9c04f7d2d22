"""What a network holds, and a way to run it without leaving a trace on it."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penjing.core import UsageError


def count_params(model: nn.Module) -> int:
    """Elements of all parameters, frozen ones too; tied parameters (one storage, several names) count once.

    It says nothing about computation: an embedding holds many parameters and costs no multiplication.
    """
    return sum(tensor.numel() for tensor in _once(model.parameters()))


def state_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers (non-persistent ones too), each storage once.

    It is not the size of a file, which adds names and may leave buffers out, nor the memory a forward needs.
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in _once(_held(model)))


def _held(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())


def _once(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Views of the same elements count once, also transposed; different parts of one storage both count."""
    seen: set[tuple[int, int, int]] = set()
    for tensor in tensors:
        if is_lazy(tensor):
            raise UsageError("the network has lazy parameters without a shape yet: run it once, then measure")
        key = (tensor.untyped_storage()._cdata, int(tensor.storage_offset()), int(tensor.numel()))
        if key not in seen:
            seen.add(key)
            yield tensor


def device_of(model: nn.Module) -> torch.device:
    """The one device the network lives on; the CPU for a network that holds nothing."""
    devices = {tensor.device for tensor in _held(model)}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise UsageError(f"{type(model).__name__} is spread over {names}: move it to one device first")
    return devices.pop() if devices else torch.device("cpu")


def dtype_of(model: nn.Module) -> str:
    """Names of the parameters' dtypes, for example "float32" or "bfloat16+float32"."""
    names = {str(tensor.dtype).removeprefix("torch.") for tensor in model.parameters()}
    return "+".join(sorted(names)) or "none"


def placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The network itself where it already lives on `device`, else a copy moved there."""
    here = device_of(model)
    there = here if device is None else _resolved(device)
    if "meta" in (here.type, there.type):
        raise UsageError("a network on the meta device has no time and no memory: give it weights first")
    return model if there == here else copy.deepcopy(model).to(there)


def _resolved(device: torch.device | str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {str(device)!r} cannot be used here: {error}") from error


@contextmanager
def untouched(*models: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module's attributes are what they were: modes, caches, counters.

    The contents of tensors are not restored; in eval mode a network has no reason to write into its own.
    """
    modules = [module for model in models for module in model.modules()]
    before = [(module, module.training, _attributes(module)) for module in modules]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training, attributes in before:
            _restore(module.__dict__, attributes)
            module.training = training


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Each attribute, and for a plain dict (a cache, a registry of children) its content."""
    plain = (dict, OrderedDict)
    return {
        name: (value, value.copy() if type(value) in plain else None)
        for name, value in module.__dict__.items()
    }


def _restore(record: dict[str, Any], attributes: dict[str, tuple[Any, Any]]) -> None:
    for name in record.keys() - attributes.keys():
        del record[name]
    for name, (value, content) in attributes.items():
        if content is not None:
            value.clear()
            value.update(content)
        record[name] = value
