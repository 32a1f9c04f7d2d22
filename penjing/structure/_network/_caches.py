"""Tables in which a network keeps what it computed of its parameters, such as biases by position, between evaluations.

A network that keeps one drops it when told to train: its own `train` is asked to, so that a forward computes anew.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_TABLES = frozenset({dict, OrderedDict, list})


def drop_caches(modules: Iterable[nn.Module]) -> None:
    """Have the modules forget, for good; their modes stay."""
    for module in modules:
        if type(module).train is not nn.Module.train and any(True for _ in _tables(module)):
            modes = [(m, m.training) for m in module.modules()]
            module.train(True)
            module.train(False)
            for each, mode in modes:
                each.training = mode


@contextmanager
def caches_dropped(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Have the modules forget, and give them back what they kept."""
    modules = list(modules)
    kept = [
        (module, name, table, table.copy())
        for module in modules
        if type(module).train is not nn.Module.train
        for name, table in _tables(module)
    ]
    drop_caches(modules)
    try:
        yield
    finally:
        for module, name, table, content in kept:
            table.clear()
            table.extend(content) if isinstance(table, list) else table.update(content)
            module.__dict__[name] = table


def _tables(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Plain dicts and lists of tensors that are no parameters."""
    for name, value in module.__dict__.items():
        if type(value) in _TABLES and name not in ("_parameters", "_buffers"):
            items = value.values() if isinstance(value, dict) else value
            if any(type(item) is torch.Tensor for item in items):
                yield name, value
