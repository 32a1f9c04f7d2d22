"""Fewer pixels or frames: what the network is given is averaged before its first layer reads it."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core._edits import AdjustComponent
from penjing.core._graph import ModuleCall
from penjing.structure import CONVOLUTION
from penjing.surgery._adjustments._links import once
from penjing.surgery._adjustments._propose import Misfit, Site, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, number, text

RESOLUTION = "resolution"
SHARES = (75, 50)  # percent of the places along a side that stay
PLACES = ("pixels", "frames")
FEWEST = 16  # places along a side, below which nothing is to be had


class Fewer(nn.Module):
    """A module that is given `percent` of the pixels along each side of pictures [n, c, h, w], or of the frames of
    sequences along `dim`.

    Halves are means of 2 x 2 pixels or of two frames, others are interpolated linearly.
    """

    def __init__(self, inner: nn.Module, percent: int, dim: int) -> None:
        super().__init__()
        self.inner, self.percent, self.dim = inner, percent, dim

    def __getattr__(self, name: str) -> Any:
        """What the network's code asks of the module, the module answers."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.inner(self._fewer(x), *args, **kwargs)

    def _fewer(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            if self.percent == 50:
                return F.avg_pool2d(x, 2, ceil_mode=True)
            size = [-(-n * self.percent // 100) for n in x.shape[2:]]
            return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        turned = x.transpose(1, 2) if self.dim == 1 else x
        if self.percent == 50:
            fewer = F.avg_pool1d(turned, 2, ceil_mode=True)
        else:
            size = -(-turned.shape[2] * self.percent // 100)
            fewer = F.interpolate(turned, size=size, mode="linear", align_corners=False)
        return fewer.transpose(1, 2) if self.dim == 1 else fewer


@adjustment(
    RESOLUTION,
    tell=lambda o: (
        f"it reads {o['percent']}% of the {o['of']}{' along each side' if o['of'] == 'pixels' else ''}"
    ),
)
def fewer_places(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """The module as it is, given fewer places: the network takes what it took, and works on less."""
    (first,) = modules
    percent = number(options, "percent")
    if not 0 < percent < 100:
        raise ValueError(f"percent={percent} is not between 1 and 99")
    if text(options, "of") not in PLACES or number(options, "dim") not in (1, 2):
        raise ValueError(f"of={options['of']!r} in dim {options['dim']!r} is neither pixels nor frames")
    return (Fewer(first, percent, number(options, "dim")),)


@proposer
def _fewer(site: Site) -> Iterator[AdjustComponent | Misfit]:
    graph = site.parts.graph
    for value in graph.inputs:
        shape, dtype = site.shape(value), graph.values[value].dtype
        if len(shape) not in (3, 4) or "float" not in dtype:
            continue
        calls = [c for c in once(site) if c.inputs[:1] == (value,) and _alone(site, c)]
        if not calls:
            yield Misfit(kind=RESOLUTION, module="", why="no single module reads what the network is given")
            continue
        first = max(calls, key=lambda c: c.path.count("."))
        part = site.parts.found.get(first.path)
        convolves = part is not None and part.kind == CONVOLUTION
        dim = 2 if len(shape) == 4 or convolves else 1
        if min(shape[2:] if len(shape) == 4 else shape[dim : dim + 1]) < FEWEST:
            yield Misfit(
                kind=RESOLUTION, module=first.path, why=f"it is given {list(shape[1:])}, which is little"
            )
            continue
        of = "pixels" if len(shape) == 4 else "frames"
        for percent in SHARES:
            yield site.edit(RESOLUTION, first.path, percent=percent, of=of, dim=dim)


def _alone(site: Site, call: ModuleCall) -> bool:
    """Whether a module alone reads the first tensor that it is given."""
    inside = site.parts.graph.calls[call.first_op : call.last_op]
    return all(one in inside for one in site.parts.readers.get(call.inputs[0], ()))
