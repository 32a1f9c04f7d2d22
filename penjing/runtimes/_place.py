"""Where a network lives, and a way to run it without leaving a trace on it."""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn

from penjing.core import UsageError
from penjing.runtimes._inputs import ExampleInputs, map_tensors, rebatch


def device_of(model: nn.Module) -> torch.device:
    """The one device the network lives on; the CPU for a network that holds nothing."""
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise UsageError(f"{type(model).__name__} is spread over {names}: move it to one device first")
    return devices.pop() if devices else torch.device("cpu")


def placed(model: nn.Module, device: torch.device | str | None) -> nn.Module:
    """The network itself where it already lives on `device`, else a copy moved there."""
    here = device_of(model)
    there = here if device is None else _resolved(device)
    if "meta" in (here.type, there.type):
        raise UsageError("a network on the meta device has no time and no memory: give it weights first")
    return model if there == here else copy.deepcopy(model).to(there)


def in_place(
    model: nn.Module, example_inputs: ExampleInputs, batch_size: int | None, device: torch.device | str | None
) -> tuple[nn.Module, ExampleInputs]:
    """The network on `device`, and copies of the inputs there with `batch_size` examples."""
    model = placed(model, device)
    home = device_of(model)
    with torch.inference_mode(False), torch.no_grad():
        return model, map_tensors(lambda tensor: tensor.to(home), rebatch(example_inputs, batch_size))


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
