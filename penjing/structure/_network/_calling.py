"""How a network is called, and the tensors in what it returns."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves

from penjing.core import UsageError
from penjing.structure._network._containers import tensors_of

ExampleInputs = Any
_MASKED = -1e4


def call_with(model: nn.Module, example: ExampleInputs) -> Any:
    """Call a network with a tensor, a tuple of arguments or a dict of keyword arguments; gives what it returns to
    its caller, without the state that it hands back to itself.
    """
    if isinstance(example, Mapping):
        return _without_state(model, model(**example))
    if isinstance(example, tuple) and not isinstance(example, PackedSequence):
        return _without_state(model, model(*example))
    return _without_state(model, model(example))


def _without_state(model: nn.Module, output: Any) -> Any:
    """The fields of an output, less opaque objects named as an argument of the forward (a key/value cache).

    Only the network reads them again, so their sizes are no contract; tensors in tuples, dicts and dataclasses are.
    """
    if dataclasses.is_dataclass(output) and not isinstance(output, (type, Mapping)):
        fields = {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    elif isinstance(output, Mapping):
        fields = dict(output)
    else:
        return output
    state = {k for k, v in fields.items() if isinstance(k, str) and _opaque(v)}
    if state:
        state &= set(inspect.signature(model.forward).parameters)
    return {k: v for k, v in fields.items() if k not in state} if state else output


def _opaque(item: Any) -> bool:
    """Whether an object is neither a tensor nor a container or record of tensors."""
    leaves = tree_leaves(item)
    return (
        len(leaves) == 1
        and leaves[0] is item
        and hasattr(item, "__dict__")
        and not isinstance(item, (torch.Tensor, Mapping, set, frozenset))
        and not dataclasses.is_dataclass(item)
    )


def check_example(example: ExampleInputs) -> None:
    """Raises `UsageError` unless `example` holds a tensor and is a tensor, a tuple or a dict."""
    if not isinstance(example, (torch.Tensor, tuple, Mapping)):
        raise UsageError(
            f"example_inputs is a {type(example).__name__}: give a tensor, a tuple of arguments or a dict of "
            "keyword arguments, e.g. torch.randn(1, 3, 224, 224); a list holds alternatives of these"
        )
    tensors = tensors_of(example)
    if not tensors:
        raise UsageError("example_inputs holds no tensor: give what the network's forward takes")
    if any(tensor.layout is not torch.strided for tensor in tensors):
        raise UsageError(
            "example_inputs holds a sparse tensor, which cannot be followed: give it dense (tensor.to_dense()); the "
            "smaller network takes it sparse again"
        )
    if not any(tensor.numel() for tensor in tensors):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        raise UsageError(
            f"example_inputs holds only empty tensors {shapes}: give at least one example, so that there is "
            "something to compare"
        )


def is_additive_mask(tensor: torch.Tensor) -> bool:
    """Whether an input only says what to leave out: nothing above zero, and something so far below that it is no data.

    Its values belong to the example, as those of a boolean mask do.
    """
    if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel():
        return False
    lowest, highest = torch.aminmax(tensor.detach())
    return highest.item() <= 0 and lowest.item() <= _MASKED


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


def form_of(output: Any) -> str:
    """What a forward returned: t a tensor, n None, in brackets a tuple of these, ? anything else.

    >>> form_of((torch.zeros(2), None)), form_of([torch.zeros(2)])
    ('(tn)', '?')
    """
    if type(output) is tuple:
        return f"({''.join(map(form_of, output))})"
    return "t" if isinstance(output, torch.Tensor) else "n" if output is None else "?"
