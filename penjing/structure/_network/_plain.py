"""Tensors that modules keep as plain attributes (`self.places = torch.randn(...)`): no parameters and no buffers, but
the forward reads them, so they shrink with what they meet.
"""

from collections.abc import Iterator

import torch
from torch import nn

from penjing.structure._network._walk import each_path

UNREGISTERED = (
    "meets a parameter that the network does not register (a module kept in a plain list or dict, which "
    "state_dict() does not know): keep it in nn.ModuleList, nn.ModuleDict or nn.ParameterList"
)

_PLAIN = frozenset({list, tuple, dict})
_REGISTRIES = frozenset({"_parameters", "_buffers", "_modules"})


def plain_tensors(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, torch.Tensor]]:
    """(path, module, attribute, tensor) of every plain tensor attribute that holds floating-point numbers."""
    for path, module in each_path(model):
        for name, value in list(module.__dict__.items()):
            if type(value) is torch.Tensor and (value.is_floating_point() or value.is_complex()):
                yield f"{path}.{name}" if path else name, module, name, value


def loose_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Modules in plain lists, tuples and dicts, which `modules()` does not reach."""
    for _, module in each_path(model):
        held = [v for n, v in module.__dict__.items() if type(v) in _PLAIN and v and n not in _REGISTRIES]
        for value in held:
            for item in value.values() if isinstance(value, dict) else value:
                if isinstance(item, nn.Module):
                    yield item
