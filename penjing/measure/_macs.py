"""Multiply-accumulates, counted from the shapes of the operations one forward runs."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from penjing.runtimes import ExampleInputs, as_call, forward, map_tensors, untouched


def count_macs(model: nn.Module, example_inputs: ExampleInputs) -> int:
    """Multiply-accumulates of one forward in eval mode on the example inputs as given, their whole batch.

    Counted: convolutions, and everything that is a matrix product: linear layers, attention's two products,
    recurrent layers, bilinear layers. One multiply-accumulate is two FLOPs of `torch.utils.flop_counter`.
    Not counted: biases, activations, normalisation, pooling, softmax, elementwise arithmetic, data movement,
    Fourier transforms, and custom kernels without a formula. It is not time: see `measure` for latency.

    The network runs on the meta device, without data, where it can, and for real where its control flow
    needs values; it is left as it was. UsageError where it cannot run on these inputs.
    """
    return macs_by_module(model, example_inputs)[""]


def macs_by_module(model: nn.Module, example_inputs: ExampleInputs) -> Mapping[str, int]:
    """`count_macs` for every module path that computes; a parent includes its children, "" is the whole."""
    as_call(example_inputs)
    counter = _count_on_meta(model, example_inputs) or _count_for_real(model, example_inputs)
    flops = {_path(name): sum(ops.values()) for name, ops in counter.get_flop_counts().items() if "." in name}
    return {"": counter.get_total_flops() // 2} | {path: count // 2 for path, count in flops.items()}


def _path(name: str) -> str:
    """The tracker puts the class of the root before the module path."""
    return name.partition(".")[2]


def _count_on_meta(model: nn.Module, example_inputs: ExampleInputs) -> FlopCounterMode | None:
    """None where the network cannot be copied, or cannot run without values."""
    try:
        with _counting() as counter, torch.device("meta"):
            args, kwargs = as_call(map_tensors(lambda tensor: tensor.to("meta"), example_inputs))
            _on_meta(model).eval()(*args, **kwargs)
    except Exception:
        return None
    return counter


def _on_meta(model: nn.Module) -> nn.Module:
    """A copy without data: every reference to a parameter or buffer, also in private lists, leads to meta."""
    memo: dict[int, Any] = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in model.buffers()}
    for tensor in model.parameters():
        memo[id(tensor)] = nn.Parameter(torch.empty_like(tensor, device="meta"), False)
    return copy.deepcopy(model, memo)


def _count_for_real(model: nn.Module, example_inputs: ExampleInputs) -> FlopCounterMode:
    asking = [p for p in model.parameters() if p.requires_grad]
    with untouched(model), _counting() as counter, _not_asking(asking):
        forward(model, map_tensors(torch.clone, example_inputs))
    return counter


@contextmanager
def _not_asking(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No parameter asks for gradients inside: torch's module tracker fails on a view of one made without gradients."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def _counting() -> Iterator[FlopCounterMode]:
    """Transformer layers take their unfused path, which the counter can see."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
        with torch.inference_mode(False), torch.no_grad(), counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


Shape = tuple[int, ...]


def _product_flops(left: Shape, right: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(left)


def _addmv_flops(bias: Shape, matrix: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(matrix)


def _bilinear_flops(left: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(left[:-1]) * prod(weight)


def _rnn_layer_flops(steps: Shape, input_weight: Shape, hidden_weight: Shape, *_: Any, **__: Any) -> int:
    return 2 * prod(steps[:-1]) * (prod(input_weight) + prod(hidden_weight))


def _rnn_flops(steps: Shape, weights: list[Shape], *_: Any, **__: Any) -> int:
    return 2 * prod(steps[:-1]) * sum(prod(weight) for weight in weights if len(weight) == 2)


_aten = torch.ops.aten
FORMULAS = {
    _aten.mv: _product_flops,
    _aten.dot: _product_flops,
    _aten.addmv: _addmv_flops,
    _aten._trilinear: _bilinear_flops,
    _aten.mkldnn_rnn_layer: _rnn_layer_flops,
    _aten._cudnn_rnn: _rnn_flops,
}
