"""The modules and tensors of a network, walked without the price of `named_modules`."""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

Named = list[tuple[str, nn.Module]]


def every_path(model: nn.Module) -> Named:
    """What `named_modules(remove_duplicate=False)` gives, in its order: a shared module under each of its paths."""
    found: Named = []
    pending: Named = [("", model)]
    while pending:
        path, module = pending.pop()
        found.append((path, module))
        children = module._modules
        if children:
            prefix = f"{path}." if path else ""
            pending.extend((prefix + n, m) for n, m in reversed(children.items()) if m is not None)
    return found


def first_paths(named: Iterable[tuple[str, nn.Module]]) -> Named:
    """Each module once, under its first path."""
    seen: dict[int, tuple[str, nn.Module]] = {}
    for entry in named:
        seen.setdefault(id(entry[1]), entry)
    return list(seen.values())


def each_path(model: nn.Module) -> Named:
    """What `named_modules()` gives: each module once."""
    return first_paths(every_path(model))


def named_parameters(named: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of these modules; a shared one under each of its names if each path is given."""
    for path, module in named:
        for name, tensor in module._parameters.items():
            if tensor is not None:
                yield (f"{path}.{name}" if path else name), tensor


def named_buffers(named: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The buffers of these modules; a shared one under each of its names if each path is given."""
    for path, module in named:
        for name, tensor in module._buffers.items():
            if tensor is not None:
                yield (f"{path}.{name}" if path else name), tensor
