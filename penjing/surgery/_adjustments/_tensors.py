"""Convolutions and fully connected layers made from the tensors of others."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.surgery._adjustments._registry import Options

_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
SETTINGS = ("stride", "padding", "dilation")


def tensor(module: nn.Module, name: Any) -> Tensor:
    """A module's own parameter or buffer, in float64; raises `ValueError` where it has none of this name."""
    found = module._parameters.get(str(name))
    found = module._buffers.get(str(name)) if found is None else found
    if found is None:
        raise ValueError(f"{type(module).__name__} has no tensor {name!r}")
    return found.detach().double()


def perhaps(module: nn.Module, name: Any) -> Tensor | None:
    return None if name is None else tensor(module, name)


def learnt(module: nn.Module, name: Any) -> nn.Parameter:
    """The parameter itself, whose type, device and `requires_grad` what replaces it takes over."""
    found = module._parameters.get(str(name))
    if found is None:
        raise ValueError(f"{type(module).__name__} has no parameter {name!r}")
    return found


def convolution(
    weight: Tensor,
    bias: Tensor | None,
    like: nn.Parameter,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> nn.Module:
    """A convolution with these values, of the type and device of `like`."""
    kind: Callable[..., nn.Module] = _CONVOLUTIONS[weight.dim()]
    made = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(stride),
        padding=tuple(padding),
        dilation=tuple(dilation),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    return _filled(made, weight, bias, like)


def settings(options: Options) -> dict[str, Any]:
    """Stride, padding, dilation and groups as a traced convolution had them."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        value = options[name]
        if not isinstance(value, tuple):
            raise ValueError(f"{name}={value!r} is no tuple")
        found[name] = value
    return found | {"groups": options.get("groups", 1)}


def linear(weight: Tensor, bias: Tensor | None, like: nn.Parameter) -> nn.Module:
    """A fully connected layer with these values [out, in], of the type and device of `like`."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _filled(made, weight, bias, like)


def alike(
    module: Any, weight: Tensor, bias: Tensor | None, like: nn.Parameter, options: Options
) -> nn.Module:
    """A convolution where the options have a stride, else a fully connected layer."""
    return (
        convolution(weight, bias, like, **settings(options))
        if "stride" in options
        else linear(weight, bias, like)
    )


def _filled(made: Any, weight: Tensor, bias: Tensor | None, like: nn.Parameter) -> nn.Module:
    made.weight = _parameter(weight, like)
    if bias is not None:
        made.bias = _parameter(bias, like)
    return made


def _parameter(values: Tensor, like: nn.Parameter) -> nn.Parameter:
    last = (
        like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    )
    values = values.to(dtype=like.dtype, device=like.device)
    order = torch.channels_last if last and values.dim() == 4 else torch.contiguous_format
    return nn.Parameter(values.contiguous(memory_format=order), like.requires_grad)
