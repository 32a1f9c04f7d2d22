"""Contractions: matrix products and convolutions."""

import functools
from typing import Any

import torch

from penjing.core._graph import OpCall, Ref
from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._rules._registry import Labels, Site, rule

aten = torch.ops.aten

EINSUMS = {
    aten.mm: "m k, k n -> m n",
    aten.bmm: "b m k, b k n -> b m n",
    aten.mv: "m k, k -> m",
    aten.dot: "k, k ->",
    aten.addmm: "_, m k, k n -> m n",
    aten.addbmm: "_, b m k, b k n -> m n",
    aten.baddbmm: "_, b m k, b k n -> b m n",
    aten.addmv: "_, m k, k -> m",
    aten._sparse_addmm: "_, m k, k n -> m n",
    aten.addr: "_, m, n -> m n",
}


def contract(site: Site) -> list[Labels]:
    """Same letters are the same dim; a letter missing from the output is contracted; `_` broadcasts onto the output."""
    terms, right = _letters(EINSUMS[site.call.op.overloadpacket])
    known: dict[str, Dim] = {}
    for position, letters in enumerate(terms):
        if letters == ["_"]:
            continue
        ref = site.arg(position)
        for axis, letter in enumerate(letters):
            own = site.labels(ref)[axis]
            known[letter] = site.unify(known[letter], own) if letter in known else own
            if letter not in right:
                site.reduce(ref, axis)
    output = [known[letter] for letter in right]
    _name_heads(site, terms, known)
    if terms[0] == ["_"]:
        output = _add_bias(site, site.arg(0), output)
    return [output]


@functools.cache
def _letters(einsum: str) -> tuple[list[list[str]], list[str]]:
    left, _, right = einsum.partition("->")
    return [term.split() for term in left.split(",")], right.split()


for _packet in EINSUMS:
    rule(_packet)(contract)


def _name_heads(site: Site, terms: list[list[str]], known: dict[str, Dim]) -> None:
    """A batched product of activations is attention: its batch dim holds heads, the others head dims.

    Where the batch dim holds none (single-headed attention over pixels), the inner dims are ordinary channels.
    """
    if not known.get("b"):
        return
    factors = {site.arg(i).value for i, letters in enumerate(terms) if letters != ["_"]}
    if not factors.isdisjoint(site.facts.weights) or factors.isdisjoint(site.facts.data):
        return
    for letter, dim in known.items():
        if dim:
            site.facts.kinds.append(("head" if letter == "b" else "head_dim", dim))


def _add_bias(site: Site, bias: Ref, output: Labels) -> Labels:
    own, sizes, shape = site.labels(bias), site.shape(bias), site.output_shape()
    for axis in range(1, len(sizes) + 1):
        if sizes[-axis] == shape[-axis] and shape[-axis] > 1:
            output[-axis] = site.unify(output[-axis], own[-axis])
    return output


@rule(aten.convolution, aten._convolution)
def convolution(site: Site) -> list[Labels]:
    """Input channels meet the weight's input dim, output channels its output dim, per group."""
    x, weight, bias = site.arg(0), site.arg(1), site.arg(2)
    transposed, groups = bool(site.arg(6)), int(site.arg(8))
    places = _places(site, x, weight, transposed)
    channels = (
        _grouped(site, x, weight, groups, transposed) if groups > 1 else _dense(site, x, weight, transposed)
    )
    if isinstance(bias, Ref):
        channels = site.unify(channels, site.labels(bias)[0])
    site.reduce(x, 1)
    return [[site.labels(x)[0], channels, *places]]


def _places(site: Site, x: Any, weight: Any, transposed: bool) -> Labels:
    """A kernel of one that neither strides nor pads keeps places apart; any other slides over its dims."""
    places = []
    for axis, dim in enumerate(site.labels(x)[2:]):
        step, padding, more = (site.arg(i)[axis % len(site.arg(i))] for i in (3, 4, 7))
        if site.shape(weight)[2 + axis] == 1 and (step, padding) == (1, 0) and not (transposed and more):
            places.append(dim)
            continue
        if dim and spans_whole(site.call, site.shape(x), site.shape(weight), axis):
            site.unify(dim, site.labels(weight)[2 + axis])
            site.reduce(x, 2 + axis)
            places.append(FIXED)
            continue
        site.freeze(site.labels(weight)[2 + axis], "slides over this dim")
        site.freeze(dim, "slides over this dim")
        places.append(FIXED)
    return places


def spans_whole(call: OpCall, x: tuple[int, ...], weight: tuple[int, ...], axis: int) -> bool:
    """Whether a kernel reads a spatial dim from end to end, and so sums over it (words by their embeddings)."""
    padding = call.args[4]
    return not call.args[6] and x[2 + axis] == weight[2 + axis] and padding[axis % len(padding)] == 0


def _dense(site: Site, x: Any, weight: Any, transposed: bool) -> Dim:
    out, into = (1, 0) if transposed else (0, 1)
    own = site.labels(weight)
    site.unify(site.labels(x)[1], own[into])
    return own[out]


def _grouped(site: Site, x: Any, weight: Any, groups: int, transposed: bool) -> Dim:
    """Channels are (group, place in the group); groups stay together from input to output."""
    own, sizes = site.labels(weight), site.shape(weight)
    outs = site.output_shape()[1] // groups
    ins = site.shape(x)[1] // groups
    in_group, in_place = _split(site, site.labels(x)[1], groups, ins)
    split = _split(site, own[0], groups, sizes[0] // groups)
    group = site.unify(in_group, split[0], "ties groups that factorise differently")
    if transposed:
        site.unify(in_place, split[1])
        out_place = own[1]
    else:
        site.unify(in_place, own[1])
        out_place = split[1]
    if ins > 1:
        site.facts.kinds.append(("group", group))
    site.require(site.size_expr(groups), group, "is called with this number of groups")
    return site.atoms.merge((group, out_place), (groups, outs))


def _split(site: Site, dim: Dim, groups: int, places: int) -> tuple[Dim, Dim]:
    if not dim:
        return FIXED, FIXED
    group, place = site.atoms.reshape(dim, (groups, places))
    return group, place


@rule(aten._trilinear)
def trilinear(site: Site) -> list[Labels]:
    """Three factors on common axes, each stretched over those it lacks, multiplied and summed."""
    refs, stretched, summed = [site.arg(i) for i in range(3)], [site.arg(i) for i in (3, 4, 5)], site.arg(6)
    rank = len(site.shape(refs[0])) + len(stretched[0])
    axes: list[Dim] = [FIXED] * rank
    met = [False] * rank
    for ref, lacks in zip(refs, stretched, strict=True):
        own = [a for a in range(rank) if a not in lacks]
        for position, (axis, dim) in enumerate(zip(own, site.labels(ref), strict=True)):
            axes[axis] = site.unify(axes[axis], dim) if met[axis] else dim
            met[axis] = True
            if axis in summed:
                site.reduce(ref, position)
    return [[dim for axis, dim in enumerate(axes) if axis not in summed]]


@rule(aten._cdist_forward, aten._euclidean_dist)
def distances(site: Site) -> list[Labels]:
    """(.., m, k) and (.., n, k) -> (.., m, n): what both lack adds nothing to a distance."""
    x, y = site.arg(0), site.arg(1)
    one, other = site.labels(x), site.labels(y)
    site.unify(one[-1], other[-1])
    for ref in (x, y):
        site.reduce(ref, len(site.shape(ref)) - 1)
    batch = list(one[:-2])
    for axis in range(1, min(len(one), len(other)) - 1):
        a, b = site.shape(x)[-2 - axis], site.shape(y)[-2 - axis]
        if a == b:
            batch[-axis] = site.unify(one[-2 - axis], other[-2 - axis])
        elif a == 1:
            batch[-axis] = other[-2 - axis]
    return [[*other[: max(0, len(other) - len(one))], *batch, one[-2], other[-2]]]


@rule("torchvision::deform_conv2d")
def deformed(site: Site) -> list[Labels]:
    """A convolution that looks up pixels where offsets say: channels as in a plain one, pixels and offsets stay."""
    x, weight, bias, groups = site.arg(0), site.arg(1), site.arg(4), (site.arg(11), site.arg(12))
    labels, own = site.labels(x), site.labels(weight)
    for dim in (*labels[2:], *own[2:], *(d for i in (2, 3) for d in site.labels(site.arg(i))[1:])):
        site.freeze(dim, "looks up pixels by place")
    if groups != (1, 1):
        for dim in (labels[1], own[0], own[1]):
            site.freeze(dim, "looks up pixels by groups of channels, which are not followed")
        return [[labels[0], own[0], FIXED, FIXED]]
    site.unify(labels[1], own[1])
    site.reduce(x, 1)
    return [[labels[0], site.unify(own[0], site.labels(bias)[0]), FIXED, FIXED]]
