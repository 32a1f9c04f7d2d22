"""Exact ones: a batch norm folded into the layer before it, and layers in a row that become one."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core._edits import AdjustComponent
from penjing.structure import ACTIVATION, CONVOLUTION, LINEAR, NORM, Part
from penjing.surgery._adjustments._propose import Misfit, Site, convolution_options, layer_options, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, pair, text
from penjing.surgery._adjustments._tensors import alike, convolution, learnt, linear, perhaps, tensor

FOLD, MERGE = "fold_norm", "merge"


@adjustment(FOLD, exact=True, tell=lambda _: "batch norm folded into it")
def fold_norm(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """W' = W g / sqrt(v + eps), b' = (b - m) g / sqrt(v + eps) + h, for scale g, shift h, mean m, variance v."""
    layer, norm = modules
    weight, bias = tensor(layer, options["weight"]), perhaps(layer, options.get("bias"))
    given: Any = options["eps"]
    eps = float(given or 0)
    if not 0 <= eps < 1:
        raise ValueError(f"eps={eps} is not from 0 to 1")
    scale = tensor(norm, "weight") / (tensor(norm, "running_var") + eps).sqrt()
    moved = -tensor(norm, "running_mean") if bias is None else bias - tensor(norm, "running_mean")
    new = alike(
        layer,
        weight * scale.view(-1, *[1] * (weight.dim() - 1)),
        moved * scale + tensor(norm, "bias"),
        learnt(layer, options["weight"]),
        options,
    )
    return new, _rest(norm, text(options, "after"))


def _rest(norm: nn.Module, after: str) -> nn.Module:
    """What the norm's module runs after the norm itself."""
    children = [(name, norm.get_submodule(name)) for name in after.split(",") if name]
    return nn.Sequential(OrderedDict(children)) if children else nn.Identity()


@proposer
def folds(site: Site) -> Iterator[AdjustComponent | Misfit]:
    """Every batch norm of the network: its fold, or why it has none."""
    for norm in site.parts.of(NORM):
        layer = next((p for p in site.parts.found.values() if p.target == norm.source), None)
        why = _no_fold(site, layer, norm)
        if why or layer is None:
            yield Misfit(kind=FOLD, module=norm.path, why=why)
            continue
        kept = tuple(f"{layer.path}.{name}" for name in (layer.weight, layer.bias) if name)
        options = layer_options(layer)
        if options["weight"] != "weight" or options["bias"] not in (None, "bias"):
            yield Misfit(
                kind=FOLD, module=norm.path, why="the layer's tensors are not called weight and bias"
            )
            continue
        yield site.edit(
            FOLD, layer, norm, kept=kept, eps=norm.op.args[7], after=",".join(norm.after), **options
        )


def _no_fold(site: Site, layer: Part | None, norm: Part) -> str:
    if layer is None or layer.kind not in (CONVOLUTION, LINEAR):
        return "no convolution or fully connected layer gives what it normalises"
    if len(site.parts.readers.get(layer.target, ())) > 1 or layer.target in site.parts.graph.outputs:
        return f"others read what {layer.path} gives, too"
    if layer.kind == LINEAR and len(site.shape(layer.target)) != 2:
        return "the layer's outputs lie along another dim than the norm's"
    if layer.after or norm.weight != "weight" or norm.bias != "bias":
        return "its code does more, or its tensors have other names"
    return ""


@adjustment(
    MERGE,
    exact=lambda options: bool(options.get("exact")),
    tell=lambda options: f"merged into one {options['made']}{'' if options.get('exact') else ', inexactly'}",
)
def merge(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """One layer for two with nothing, or nothing that is kept, between: W'' = W' * W, b'' = W' b + b'.

    Exact where the second convolution pads nothing, or the first has no bias and 1x1 kernels. (Merging convolutions
    once the activation between them is gone: Kim et al., LayerMerge, ICML 2024.)
    """
    first, *between, second = modules
    a, b = tensor(first, options["weight"]), tensor(second, options["weight_2"])
    bias = _shift(b, perhaps(first, options.get("bias")), perhaps(second, options.get("bias_2")))
    like = learnt(first, options["weight"])
    made = _convolution(a, b, bias, like, options) if "stride" in options else linear(b @ a, bias, like)
    return nn.Sequential(OrderedDict(merged=made)), *(nn.Identity() for _ in (*between, second))


def _shift(b: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None:
        return second
    carried = (b.flatten(2).sum(2) if b.dim() > 2 else b) @ first
    return carried if second is None else carried + second


def _convolution(
    a: Tensor, b: Tensor, bias: Tensor | None, like: nn.Parameter, options: Options
) -> nn.Module:
    """Kernel sizes k + (k' - 1) s, strides s s', paddings p + p' s: the kernels themselves are convolved."""
    stride, padding = pair(options, "stride"), pair(options, "padding")
    stride_2, padding_2 = pair(options, "stride_2"), pair(options, "padding_2")
    convolve = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[a.dim()]
    spread = _spread(b, stride).flip(tuple(range(2, b.dim())))
    border = tuple(n - 1 for n in spread.shape[2:])
    weight = convolve(a.transpose(0, 1), spread, padding=border).transpose(0, 1)  # as if inputs were examples
    return convolution(
        weight,
        bias,
        like,
        stride=[s * t for s, t in zip(stride, stride_2, strict=True)],
        padding=[p + q * s for p, q, s in zip(padding, padding_2, stride, strict=True)],
        dilation=[1] * len(stride),
    )


def _spread(kernel: Tensor, stride: Sequence[int]) -> Tensor:
    """A kernel with zeros between its places."""
    sizes = [(n - 1) * s + 1 for n, s in zip(kernel.shape[2:], stride, strict=True)]
    if list(kernel.shape[2:]) == sizes:
        return kernel
    wide = kernel.new_zeros(*kernel.shape[:2], *sizes)
    wide[(..., *(slice(None, None, s) for s in stride))] = kernel
    return wide


@proposer
def _merges(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for first in (*site.parts.of(CONVOLUTION), *site.parts.of(LINEAR)):
        between, second = _next_layer(site, first)
        if second is None or second.kind != first.kind:
            continue
        why = _no_merge(first, second)
        if why:
            yield Misfit(kind=MERGE, module=first.path, why=why)
            continue
        options: dict[str, Any] = layer_options(first) | {"weight_2": second.weight, "bias_2": second.bias}
        options |= {"made": first.name, "exact": not any(p.kind == ACTIVATION for p in between)}
        if first.kind == CONVOLUTION:
            other = convolution_options(second)
            options |= {"stride_2": other["stride"], "padding_2": other["padding"]}
            options["exact"] = options["exact"] and _borders_agree(site, first, second)
        yield site.edit(MERGE, first, *between, second, **options)


def _next_layer(site: Site, first: Part) -> tuple[tuple[Part, ...], Part | None]:
    """What lies between a layer and the next, and that one; activations alone may."""
    between: list[Part] = []
    following = site.parts.follower(first)
    while following is not None and following.kind == ACTIVATION:
        between.append(following)
        following = site.parts.follower(following)
    layers = following is not None and following.kind in (CONVOLUTION, LINEAR)
    return tuple(between), following if layers else None


def _no_merge(first: Part, second: Part) -> str:
    for part in (first, second):
        if part.kind == CONVOLUTION and part.op.args[8] != 1:
            return f"{part.path} is a convolution in groups"
        if part.kind == CONVOLUTION and any(n != 1 for n in part.op.args[5]):
            return f"{part.path} is a dilated convolution"
        if part.after:
            return f"{part.path} does more than its operation"
    return ""


def _borders_agree(site: Site, first: Part, second: Part) -> bool:
    """Whether zeros around what the first gives are what it gives for zeros around what it reads."""
    if not any(second.op.args[4]):
        return True
    return first.bias is None and all(n == 1 for n in site.weight_shape(first)[2:])
