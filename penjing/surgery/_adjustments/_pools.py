"""Pooling layers of another kind, or none."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from penjing.core._edits import AdjustComponent
from penjing.structure import POOL
from penjing.surgery._adjustments._propose import Misfit, Site, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, affordable, number, pair, text

POOLING = "pool"
_TOLD = {
    "max": "max pooling",
    "avg": "average pooling",
    "conv": "a strided depthwise convolution",
    "none": "nothing",
}


@adjustment(POOLING, tell=lambda o: f"its pooling became {_TOLD.get(str(o['to']), o['to'])}")
def other_pooling(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """The same windows; the convolution starts as their average."""
    to, window = text(options, "to"), {name: pair(options, name) for name in ("kernel", "stride", "padding")}
    if to not in _TOLD:
        raise ValueError(f"to={to!r} is none of {', '.join(_TOLD)}")
    if to == "none":
        return (nn.Identity(),)
    flat = len(window["kernel"]) == 1
    kernel, stride, padding = window.values()
    if to == "conv":
        affordable(modules, number(options, "channels"), *kernel)
        return (nn.Sequential(OrderedDict(pooling=_averaging(window, number(options, "channels"), flat))),)
    kinds: dict[str, Any] = {"max": (nn.MaxPool2d, nn.MaxPool1d), "avg": (nn.AvgPool2d, nn.AvgPool1d)}
    return (kinds[to][flat](kernel, stride, padding),)


def _averaging(window: dict[str, tuple[int, ...]], channels: int, flat: bool) -> nn.Module:
    kind: Any = nn.Conv1d if flat else nn.Conv2d
    made = kind(channels, channels, *window.values(), groups=channels, bias=False)
    with torch.no_grad():
        made.weight.fill_(1 / made.weight[0].numel())
    return made


@proposer
def _pools(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for part in site.parts.of(POOL):
        if part.name.startswith("adaptive"):
            continue  # nothing is gained at the size that it gives
        source, target = site.shape(part.source), site.shape(part.target)
        args = (*part.op.args[1:], (), (), ())[:3]
        kernel = tuple(args[0])
        window = {
            "kernel": kernel,
            "stride": tuple(args[1]) or kernel,
            "padding": tuple(args[2]) or (0,) * len(kernel),
        }
        for to in _TOLD:
            if to == part.name:
                continue
            if to == "none" and source != target and min(target[2:]) < 2:
                yield Misfit(kind=POOLING, module=part.path, why="without it too many places would go on")
                continue
            yield site.edit(POOLING, part, to=to, channels=target[1], **window)
