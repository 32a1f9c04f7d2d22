"""Ops that read by position."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from penjing.core._graph import Ref
from penjing.structure._labels._atoms import FIXED
from penjing.structure._rules._elementwise import freeze_everything
from penjing.structure._rules._places import at_places
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten


@rule(aten.nonzero, aten.multinomial, aten._unique2, "torchvision::nms")
def stays(site: Site) -> list[Labels]:
    """Known ops whose dims are not followed: what they touch stays."""
    return freeze_everything(site, "rearranges indices in a way that is not followed")


@rule(aten.as_strided)
def strided(site: Site) -> list[Labels]:
    """Windows over some dims: a dim that is stepped through whole, and never inside a window's step, goes on."""
    x, size, stride = site.arg(0), site.arg(1), site.arg(2)
    labels, shape = site.labels(x), site.shape(x)
    output = fixed(size)
    for axis, dim in enumerate(labels):
        step = int(np.prod(shape[axis + 1 :], dtype=np.int64))
        place = _whole(size, stride, shape[axis], step) if not site.arg(3, 0) else None
        if place is None:
            site.freeze(dim, "lays memory out by hand")
        else:
            output[place] = dim
            given = site.call.sizes[place : place + 1]
            expr = given[0][1] if given and given[0][0] == size[place] else site.size_expr(size[place])
            site.require(expr, dim, "lays memory out by hand")
    return [output]


def _whole(size: Sequence[int], stride: Sequence[int], count: int, step: int) -> int | None:
    """The axis that runs over all `count` indices at `step`, if every other axis moves inside one or over all."""
    places = [a for a, (n, s) in enumerate(zip(size, stride, strict=True)) if (n, s) == (count, step)]
    others = [
        (n, s) for a, (n, s) in enumerate(zip(size, stride, strict=True)) if n > 1 and a not in places[:1]
    ]
    inside = sum((n - 1) * s for n, s in others if s < step)
    blocks = all(s % (step * count) == 0 for _, s in others if s >= step)
    return places[0] if len(places) == 1 and inside < step and blocks else None


@rule(aten.sort, aten.unfold)
def along(site: Site) -> list[Labels]:
    """Ops that work along one dim, each line by itself: that dim stays, the others go on."""
    x = site.arg(0)
    labels = list(site.labels(x))
    if not labels:
        return [fixed(site.output_shape(i)) for i in range(len(site.call.outputs))]
    axis = _axis(site, len(labels))
    site.freeze(labels[axis], "works by position along this dim")
    labels[axis] = FIXED
    found = []
    for position in range(len(site.call.outputs)):
        missing = len(site.output_shape(position)) - len(labels)
        found.append(
            [d for a, d in enumerate(labels) if missing >= 0 or a != axis] + [FIXED] * max(0, missing)
        )
    return found


def _axis(site: Site, rank: int) -> int:
    names = [a.name for a in site.call.op._schema.arguments]
    place = next(names.index(name) for name in ("dim", "dimension") if name in names)
    return int(site.arg(place, -1)) % rank


@rule(aten.gather)
def gather(site: Site) -> list[Labels]:
    """Positions along one dim; elsewhere an index of the output is the same index of both inputs."""
    x, axis, places = site.arg(0), site.arg(1), site.arg(2)
    rank = len(site.shape(x))
    if not rank:
        return [fixed(site.output_shape())]
    at_places(site, site.labels(x)[axis % rank], places, "is indexed by position")
    return [_beside(site, x, places, axis % rank, list(site.labels(places)))]


@rule(
    aten.scatter,
    aten.scatter_,
    aten.scatter_add,
    aten.scatter_add_,
    aten.scatter_reduce,
    aten.scatter_reduce_,
)
def scatter(site: Site) -> list[Labels]:
    """Writes at positions of one dim; elsewhere an index of the output is the same index of every input."""
    x, axis = site.arg(0), site.arg(1)
    rank = len(site.shape(x))
    if not rank:
        return [fixed(site.output_shape())]
    labels = list(site.labels(x))
    for ref in (r for r in (x, site.arg(2), site.arg(3)) if isinstance(r, Ref)):
        if ref is not x and len(site.shape(ref)) == rank:
            labels = _beside(site, ref, x, axis % rank, labels)
            site.freeze(site.labels(ref)[axis % rank], "holds positions")
    labels[axis % rank] = at_places(site, labels[axis % rank], site.arg(2), "is written by position")
    return [labels]


def _beside(site: Site, one: Ref, other: Ref, axis: int, labels: Labels) -> Labels:
    """`labels`, those of `other`, joined with those of `one` in every dim but `axis`; unequal sizes stay."""
    out = list(labels)
    for a, (n, m) in enumerate(zip(site.shape(one), site.shape(other), strict=True)):
        if a == axis:
            continue
        if n == m:
            out[a] = site.unify(labels[a], site.labels(one)[a]) if n > 1 else labels[a]
        else:
            site.freeze(site.labels(one)[a], "is cut by the size of its index")
            site.freeze(labels[a], "is cut by the size of its index")
    return out


@rule(aten.index_select)
def index_select(site: Site) -> list[Labels]:
    x, axis = site.arg(0), site.arg(1)
    labels = list(site.labels(x)) or [FIXED]
    at_places(site, labels[axis], site.arg(2), "is indexed by position")
    for dim in site.labels(site.arg(2)):
        site.freeze(dim, "holds positions")
    labels[axis] = FIXED
    return [labels if site.output_shape() else []]


@rule(aten.index_add, aten.index_add_, aten.index_copy, aten.slice_scatter)
def write_slices(site: Site) -> list[Labels]:
    """Slices written along one dim, which stays; elsewhere both tensors have the same indices."""
    x, names = site.arg(0), [a.name for a in site.call.op._schema.arguments]
    source = site.arg(next(i for i, name in enumerate(names) if name in ("source", "src")))
    rank = len(site.shape(x))
    axis = int(site.arg(names.index("dim"), 0)) % rank
    labels = _beside(site, source, x, axis, list(site.labels(x)))
    for dim in (labels[axis], site.labels(source)[axis]):
        site.freeze(dim, "is written by position")
    return [labels]


@rule(aten.select_scatter)
def select_scatter(site: Site) -> list[Labels]:
    x, source = site.arg(0), site.arg(1)
    labels = list(site.labels(x))
    axis = site.arg(2) % len(labels)
    site.freeze(labels[axis], "is written by position")
    others = [a for a in range(len(labels)) if a != axis]
    for a, dim in zip(others, site.labels(source), strict=True):
        labels[a] = site.unify(labels[a], dim) if site.shape(x)[a] > 1 else labels[a]
    return [labels]


@rule(aten.grid_sampler_2d, aten.grid_sampler_3d)
def grid_sample(site: Site) -> list[Labels]:
    """Channels go on; pixels and the grid that places them stay."""
    labels, grid = site.labels(site.arg(0)), site.labels(site.arg(1))
    for dim in (*labels[2:], *grid[1:]):
        site.freeze(dim, "samples pixels by place")
    return [[site.unify(labels[0], grid[0]), labels[1], *([FIXED] * len(labels[2:]))]]


@rule("torchvision::roi_align")
def pool_regions(site: Site) -> list[Labels]:
    """(B, C, H, W) and boxes (K, 5) -> (K, C, h, w): channels go on, pictures, pixels and boxes stay."""
    labels = site.labels(site.arg(0))
    for dim in (labels[0], *labels[2:], *site.labels(site.arg(1))):
        site.freeze(dim, "pools regions by place")
    regions = [FIXED, labels[1], FIXED, FIXED]
    return [list(regions) for _ in site.call.outputs]


@rule(aten.im2col)
def im2col(site: Site) -> list[Labels]:
    """(B, C, H, W) -> (B, C k k, places): the k x k values of a channel go with it."""
    x = site.arg(0)
    labels, shape = site.labels(x), site.shape(x)
    for dim in labels[-2:]:
        site.freeze(dim, "gathers pixels of this dim")
    block = site.output_shape()[-2] // shape[-3]
    return [[*labels[:-3], site.atoms.merge((labels[-3], FIXED), (shape[-3], block)), FIXED]]


@rule(aten.col2im)
def col2im(site: Site) -> list[Labels]:
    """(B, C k k, places) -> (B, C, H, W): a channel goes with its k x k values."""
    x = site.arg(0)
    labels, channels = site.labels(x), site.output_shape()[-3]
    site.freeze(labels[-1], "gathers pixels of this dim")
    if not labels[-2]:
        return [fixed(site.output_shape())]
    channel, block = site.atoms.reshape(labels[-2], (channels, site.shape(x)[-2] // channels))
    site.freeze(block, "adds these values up over pixels")
    return [[*labels[:-2], channel, FIXED, FIXED]]


@rule(aten.index, aten._unsafe_index)
def index(site: Site) -> list[Labels]:
    """Indexed dims stay; the others go on. Index dims stand at the first indexed place, or in front when split."""
    x, indices = site.arg(0), site.arg(1)
    labels = site.labels(x)
    taken = [i for i, r in enumerate(indices) if isinstance(r, Ref)]
    if any(len(site.shape(indices[i])) and _is_bool(site, indices[i]) for i in taken):
        return freeze_everything(site, "indexes with a mask")
    for i in taken:
        at_places(site, labels[i], indices[i], "is indexed by position")
        for dim in site.labels(indices[i]):
            site.freeze(dim, "holds positions")
    return [_around(site, x, taken, indices)]


def _around(site: Site, x: Ref, taken: list[int], indices: Any) -> Labels:
    """The dims that are not indexed, with fixed ones where the indexed ones stood."""
    rank = max(len(site.shape(indices[i])) for i in taken)
    others = [d for i, d in enumerate(site.labels(x)) if i not in taken]
    adjacent = taken == list(range(taken[0], taken[-1] + 1))
    place = taken[0] if adjacent else 0
    return [*others[:place], *([FIXED] * rank), *others[place:]]


@rule(aten.index_put, aten.index_put_)
def index_put(site: Site) -> list[Labels]:
    """Values written by position: the dims that are indexed stay, the others are those of the values."""
    x, indices, values = site.arg(0), site.arg(1), site.arg(2)
    labels = list(site.labels(x))
    taken = [i for i, r in enumerate(indices) if isinstance(r, Ref)]
    if any(len(site.shape(indices[i])) and _is_bool(site, indices[i]) for i in taken):
        return freeze_everything(site, "indexes with a mask")
    for i in taken:
        site.freeze(labels[i], "is written by position")
        for dim in site.labels(indices[i]):
            site.freeze(dim, "holds positions")
    written, own, sizes = _around(site, x, taken, indices), site.labels(values), site.shape(values)
    for axis in range(1, len(sizes) + 1):
        if sizes[-axis] > 1 and axis <= len(written):
            site.unify(written[-axis], own[-axis])
    return [labels]


def _is_bool(site: Site, ref: Any) -> bool:
    return site.graph.values[ref.value].dtype in ("torch.bool", "torch.uint8")


@rule(aten.embedding)
def embedding(site: Site) -> list[Labels]:
    """A row per token id: the ids stay, the embedding width may shrink."""
    weight, ids = site.labels(site.arg(0)), site.shape(site.arg(1))
    at_places(site, weight[0], site.arg(1), "looks rows up by id")
    for dim in site.labels(site.arg(1)):
        site.freeze(dim, "holds ids")
    return [[*fixed(ids), weight[1]]]


@rule(aten._embedding_bag, aten._embedding_bag_forward_only)
def embedding_bag(site: Site) -> list[Labels]:
    """A row per bag of token ids, and for the maximum the row each entry comes from."""
    weight = site.labels(site.arg(0))
    site.freeze(weight[0], "looks rows up by id")
    width = site.output_shape()[1]
    shapes = [site.output_shape(i) for i in range(len(site.call.outputs))]
    return [[FIXED, weight[1]] if len(s) == 2 and s[1] == width else fixed(s) for s in shapes]


@rule(aten.masked_scatter, aten.masked_scatter_)
def masked_scatter(site: Site) -> list[Labels]:
    """Rows put where a mask that is alike along the last dim is true: the last dims of both are one."""
    x, mask, source = site.arg(0), site.arg(1), site.arg(2)
    labels, own = list(site.labels(x)), site.labels(source)
    whole = labels and own and site.shape(x)[-1] == site.shape(source)[-1] and _alike_at_last(site, mask)
    if not whole:
        return freeze_everything(site, "takes values one by one where a mask is true")
    for dim in (*labels[:-1], *own[:-1], *site.labels(mask)[:-1]):
        site.freeze(dim, "takes rows where a mask is true")
    labels[-1] = site.unify(labels[-1], own[-1])
    return [labels]


def _alike_at_last(site: Site, mask: Ref) -> bool:
    """Whether a mask has a single last index, or was expanded from one that has."""
    if site.shape(mask)[-1:] == (1,):
        return True
    made = site.maker(mask.value)
    while made is not None and made.op.overloadpacket in (aten._to_copy, aten.clone, aten.detach, aten.alias):
        made = site.maker(made.inputs[0])
    if made is None or made.op.overloadpacket is not aten.expand:
        return False
    return site.graph.values[made.inputs[0]].shape[-1:] == (1,)
