"""Wide heads of several fully connected layers: the mean over places and one layer instead."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from penjing.core._edits import AdjustComponent
from penjing.structure import ACTIVATION, LINEAR, POOL, Part
from penjing.surgery._adjustments._propose import Misfit, Site, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, number
from penjing.surgery._adjustments._tensors import learnt, linear, perhaps, tensor

HEAD = "head"


@adjustment(HEAD, tell=lambda _: "the head became the mean over places and one layer")
def mean_and_one_layer(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """Global average pooling (Lin et al., "Network in network", ICLR 2014) and the product of the layers.

    The one layer starts as what the layers would do to a picture that is the same everywhere, were nothing between.
    """
    rest = modules[1:]
    names = [str(options[f"weight_{i}"]) for i in range(number(options, "layers"))]
    layers = [m for m in rest if isinstance(m._parameters.get(names[0]), nn.Parameter)]
    weights = [tensor(m, n) for m, n in zip(layers, names, strict=True)]
    biases = [perhaps(m, options.get(f"bias_{i}")) for i, m in enumerate(layers)]
    channels = number(options, "channels")
    weight = weights[0].view(len(weights[0]), channels, -1).sum(2)
    bias = biases[0] if biases[0] is not None else weight.new_zeros(len(weight))
    for following, shift in zip(weights[1:], biases[1:], strict=True):
        weight, bias = following @ weight, following @ bias
        bias = bias if shift is None else bias + shift
    made = linear(weight, bias, learnt(layers[0], names[0]))
    stand_in = {id(layers[0]): nn.Sequential(OrderedDict(only=made))}
    return nn.AdaptiveAvgPool2d(1), *(stand_in.get(id(m), nn.Identity()) for m in rest)


@proposer
def _heads(site: Site) -> Iterator[AdjustComponent | Misfit]:
    outputs = set(site.parts.graph.outputs)
    for last in site.parts.of(LINEAR):
        if last.target in outputs:
            yield _head(site, last)


def _head(site: Site, last: Part) -> AdjustComponent | Misfit:
    """The edit from the pooling before the first layer to the last, or why there is none."""
    chain = [last]
    while chain[0].kind in (LINEAR, ACTIVATION):
        before = _before(site, chain[0])
        if before is None:
            break
        chain.insert(0, before)
    pool, rest = chain[0], chain[1:]
    layers = [part for part in rest if part.kind == LINEAR]
    places = site.shape(pool.target)
    if pool.kind != POOL or len(places) != 4:
        return Misfit(kind=HEAD, module=last.path, why="no pooling of a picture leads into it alone")
    if len(layers) == 1 and places[2:] == (1, 1):
        return Misfit(kind=HEAD, module=last.path, why="it is a mean over places and one layer already")
    if len({part.weight for part in layers}) > 1:
        return Misfit(kind=HEAD, module=last.path, why="its layers call their weights by different names")
    named: dict[str, Any] = {f"weight_{i}": part.weight for i, part in enumerate(layers)}
    named |= {f"bias_{i}": part.bias for i, part in enumerate(layers)}
    return site.edit(HEAD, pool, *rest, layers=len(layers), channels=places[1], **named)


def _before(site: Site, part: Part) -> Part | None:
    """The part whose result, flattened perhaps, this one alone reads."""
    made = {value: call for call in site.parts.graph.calls for value in call.outputs}
    value = part.source
    while True:
        found = next((p for p in site.parts.found.values() if p.target == value), None)
        if found is not None:
            return found
        call = made.get(value)
        flat = call is not None and call.op.overloadpacket.__name__ in (
            "view",
            "_unsafe_view",
            "squeeze",
            "clone",
        )
        if call is None or not flat or len(site.parts.readers.get(value, ())) > 1:
            return None
        value = call.inputs[0]
