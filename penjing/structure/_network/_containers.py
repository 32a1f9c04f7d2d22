"""Tensors in what a network is called with: sequences, mappings, records, packed sequences."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn


def map_tensors(change: Callable[[torch.Tensor], torch.Tensor], item: Any) -> Any:
    """The same containers with other tensors; what holds none is handed on as it is. The original stays untouched."""
    if isinstance(item, torch.Tensor):
        return change(item)
    if not is_container(item):
        return item
    if isinstance(item, (list, tuple)):
        parts = [map_tensors(change, part) for part in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    parts = {key: map_tensors(change, part) for key, part in parts_of(item)}
    if type(item) is dict or (isinstance(item, Mapping) and not hasattr(item, "__setitem__")):
        return parts
    made: Any = copy.copy(item)
    for key, part in parts.items():
        if isinstance(item, Mapping):
            made[key] = part
        else:
            object.__setattr__(made, key, part)
    return made


def tensors_of(item: Any) -> list[torch.Tensor]:
    """Every tensor, in the order in which `map_tensors` meets them."""
    if isinstance(item, torch.Tensor):
        return [item]
    return [t for _, part in parts_of(item) for t in tensors_of(part)] if is_container(item) else []


def is_container(item: Any) -> bool:
    """Sequences, mappings, dataclasses, and plain objects that hold a tensor."""
    if isinstance(item, (list, tuple, Mapping)):
        return True
    if isinstance(item, (nn.Module, type, torch.Tensor)):
        return False
    if dataclasses.is_dataclass(item):
        return True
    return any(isinstance(part, torch.Tensor) for part in getattr(item, "__dict__", {}).values())


def parts_of(item: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(item, Mapping):
        yield from list(item.items())
    elif isinstance(item, (list, tuple)):
        yield from enumerate(item)
    elif dataclasses.is_dataclass(item):
        yield from (
            (f.name, getattr(item, f.name)) for f in dataclasses.fields(item) if hasattr(item, f.name)
        )
    else:
        yield from list(vars(item).items())
