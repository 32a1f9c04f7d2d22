"""How a network is called, and the tensors in what it returns."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from penjing.core import UsageError

ExampleInputs = Any


def call_with(model: nn.Module, example: ExampleInputs) -> Any:
    """Call a network with a tensor, a tuple of arguments or a dict of keyword arguments."""
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, tuple):
        return model(*example)
    return model(example)


def check_example(example: ExampleInputs) -> None:
    """Raises `UsageError` unless `example` holds a tensor and is a tensor, a tuple or a dict."""
    if not isinstance(example, (torch.Tensor, tuple, Mapping)):
        raise UsageError(
            f"example_inputs is a {type(example).__name__}: give a tensor, a tuple of arguments or a dict of "
            "keyword arguments, e.g. torch.randn(1, 3, 224, 224); a list holds alternatives of these"
        )
    if not any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(example)):
        raise UsageError("example_inputs holds no tensor: give what the network's forward takes")


def output_tensors(output: Any) -> list[torch.Tensor]:
    """Every tensor a forward returned, in a fixed order: in containers, dataclasses and plain objects too."""
    found: list[torch.Tensor] = []
    seen: set[int] = set()

    def visit(item: Any) -> None:
        for leaf in tree_leaves(item):
            if isinstance(leaf, torch.Tensor):
                found.append(leaf)
            elif id(leaf) not in seen and not isinstance(leaf, (nn.Module, type)):
                seen.add(id(leaf))
                if isinstance(leaf, (set, frozenset)):
                    visit(list(leaf))
                elif dataclasses.is_dataclass(leaf) or type(leaf).__module__ not in ("builtins", "torch"):
                    visit(dict(sorted(getattr(leaf, "__dict__", {}).items())))

    visit(output)
    return found
