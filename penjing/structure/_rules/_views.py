"""Ops that lay elements out anew: reshapes, permutations, repeats, shuffles."""

from collections.abc import Sequence

import numpy as np
import torch

from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._network._provenance import Expr
from penjing.structure._rules._cuts import joined
from penjing.structure._rules._elementwise import freeze_everything, sized_as
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten

USER_SIZED = {"view", "reshape", "unflatten", "view_as", "reshape_as", "multi_head_attention_forward"}


@rule(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.view_copy)
def reshape(site: Site) -> list[Labels]:
    """Dims are merged and split; a split of labelled indices becomes a product (768 -> 12 heads x 64)."""
    x = site.arg(0)
    labels, old, new = site.labels(x), site.shape(x), site.output_shape()
    output = fixed(new)
    segments = _segments(old, new)
    if segments is None:
        return freeze_everything(site, "reshapes an empty tensor")
    for ins, outs in segments:
        dims, sizes = [labels[a] for a in ins], [old[a] for a in ins]
        if not any(dims):
            for axis in outs:
                site.hold(_asked(site, new, axis), new[axis])
            continue
        flat = site.atoms.merge(dims, sizes)
        if len(ins) > 1 and x.value in site.facts.data and _shifts(site, dims):
            site.facts.flattened.append(flat)
        parts = [flat] if len(outs) == 1 else site.atoms.reshape(flat, [new[a] for a in outs])
        for axis, part in zip(outs, parts, strict=True):
            output[axis] = part
            site.require(_asked(site, new, axis), part, f"reshapes to {list(new)}")
    return [output]


def _shifts(site: Site, dims: Sequence[Dim]) -> bool:
    """Whether where an index lies, once merged, depends on dims without labels: on those inside its own."""
    free = [site.atoms.is_free(d) for d in dims]
    return True in free and not all(free[free.index(True) :])


def _segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """Runs of old and new axes with equal products; axes of size 1 are left out."""
    if 0 in old or 0 in new:
        return None
    a, b = [i for i, n in enumerate(old) if n != 1], [i for i, n in enumerate(new) if n != 1]
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        ins, outs = [a[i]], [b[j]]
        left, right = old[a[i]], new[b[j]]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                ins.append(a[i])
                left *= old[a[i]]
                i += 1
            else:
                outs.append(b[j])
                right *= new[b[j]]
                j += 1
        found.append((ins, outs))
    return found


def _asked(site: Site, new: Sequence[int], axis: int) -> Expr | None:
    """How the user's code computes this size; None where it is inferred."""
    call = site.call
    if call.function not in USER_SIZED:
        return None
    given = call.sizes[-len(new) :]
    whole = call.function in ("view", "reshape") and len(given) == len(new)
    if whole and all(v in (-1, n) for (v, _), n in zip(given, new, strict=True)):
        value, expr = given[axis]
        return None if value == -1 else expr
    if call.function == "unflatten":
        place = axis - call.sizes[0][0] % (len(new) - len(call.sizes) + 2)
        if not 0 <= place < len(call.sizes) - 1:
            return None
        value, expr = call.sizes[1 + place]
        return None if value == -1 else expr
    return None if call.function in ("view_as", "reshape_as") else site.size_expr(new[axis])


@rule(aten.permute, aten.transpose, aten.t, aten.numpy_T, aten.transpose_, aten.t_, aten.movedim)
def permute(site: Site) -> list[Labels]:
    x = site.arg(0)
    labels, rank = site.labels(x), len(site.shape(x))
    name = site.call.op.overloadpacket
    if name is aten.permute:
        order = [d % rank for d in site.arg(1)]
    elif name in (aten.transpose, aten.transpose_):
        order = list(range(rank))
        a, b = site.arg(1) % rank, site.arg(2) % rank
        order[a], order[b] = order[b], order[a]
    elif name in (aten.t, aten.t_, aten.numpy_T):
        order = list(range(rank))[::-1]
    else:
        return freeze_everything(site, "moves dims")
    return [[labels[d] for d in order]]


@rule(aten.unsqueeze, aten.unsqueeze_)
def unsqueeze(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    labels.insert(site.arg(1) % (len(labels) + 1), FIXED)
    return [labels]


@rule(aten.squeeze, aten.squeeze_)
def squeeze(site: Site) -> list[Labels]:
    x = site.arg(0)
    shape, which = site.shape(x), site.arg(1)
    axes = range(len(shape)) if which is None else [which] if isinstance(which, int) else which
    gone = {a % len(shape) for a in axes if shape[a] == 1} if shape else set()
    return [[d for a, d in enumerate(site.labels(x)) if a not in gone]]


@rule(aten.expand, aten.expand_copy)
def expand(site: Site) -> list[Labels]:
    x = site.arg(0)
    labels, old, new = site.labels(x), site.shape(x), site.output_shape()
    output = fixed(new)
    for axis in range(1, len(old) + 1):
        given = _expanded_to(site, new, axis)
        if old[-axis] == new[-axis]:
            output[-axis] = labels[-axis]
            site.require(given, labels[-axis], "expands to this size")
        elif old[-axis] == 1:
            output[-axis] = _repeated(site, new[-axis], given)
    for axis in range(len(new) - len(old)):
        if new[axis] > 1:
            output[axis] = _repeated(site, new[axis], _expanded_to(site, new, len(new) - axis))
    return [output]


def _expanded_to(site: Site, new: Sequence[int], axis: int) -> Expr | None:
    """How the user's code computes the size of the axis counted from the end; None where it is kept as it is."""
    if site.call.function != "expand":
        return None
    given = site.call.sizes[-len(new) :]
    if len(given) == len(new) and all(v in (-1, n) for (v, _), n in zip(given, new, strict=True)):
        value, expr = given[-axis]
        return None if value == -1 else expr
    return site.size_expr(new[-axis])


def _repeated(site: Site, size: int, given: Expr | None) -> Dim:
    """Labels of an axis that repeats a single index: free where a library function sizes it by its own inputs."""
    return (site.atoms.fresh(size),) if given is None else sized_as(site, size, given)


@rule(aten.flip)
def flip(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    for axis in site.arg(1):
        labels[axis] = tuple(c[::-1] for c in labels[axis])
    return [labels]


@rule(aten.roll)
def roll(site: Site) -> list[Labels]:
    labels = site.labels(site.arg(0))
    axes = site.arg(2, ()) or range(len(labels))
    for axis in axes:
        site.freeze(labels[axis], "rolls this dim")
    return [list(labels)]


@rule(
    aten.constant_pad_nd,
    aten.reflection_pad1d,
    aten.reflection_pad2d,
    aten.replication_pad1d,
    aten.replication_pad2d,
)
def pad(site: Site) -> list[Labels]:
    """Padded dims gain fixed indices at their ends."""
    x = site.arg(0)
    labels, amounts = list(site.labels(x)), site.arg(1)
    for amount, expr in zip(amounts, site.size_exprs(amounts), strict=True):
        site.keep(expr, amount, "pads by this amount")
    for k in range(len(amounts) // 2):
        before, after = amounts[2 * k], amounts[2 * k + 1]
        axis = len(labels) - 1 - k
        if (before, after) == (0, 0) or not labels[axis]:
            continue
        if min(before, after) < 0 or site.call.op.overloadpacket is not aten.constant_pad_nd:
            site.freeze(labels[axis], "pads this dim")
            labels[axis] = FIXED
            continue
        sizes = [before, site.shape(x)[axis], after]
        labels[axis] = joined(site, [FIXED, labels[axis], FIXED], sizes)
    return [labels]


@rule(aten.repeat)
def repeat(site: Site) -> list[Labels]:
    """A dim laid out several times; a single index repeated as often as a size says carries that dim's labels."""
    x = site.arg(0)
    times, labels, shape = site.arg(1), site.labels(x), site.shape(x)
    new = len(times) - len(labels)
    padded = [FIXED] * new + list(labels)
    sizes = [1] * new + list(shape)
    return [
        [
            sized_as(site, n, expr) if size == 1 and n > 1 else tuple(np.tile(c, n) for c in dim)
            for dim, size, n, expr in zip(padded, sizes, times, site.size_exprs(times), strict=True)
        ]
    ]


@rule(aten.pixel_shuffle)
def pixel_shuffle(site: Site) -> list[Labels]:
    """(.., C r r, H, W) -> (.., C, rH, rW): a channel goes with its r x r block."""
    x, factor = site.arg(0), site.arg(1)
    labels, shape = site.labels(x), site.shape(x)
    if not labels[-3]:
        return [fixed(site.output_shape())]
    channel, block = site.atoms.reshape(labels[-3], (shape[-3] // factor**2, factor**2))
    site.freeze(block, "spreads these channels over pixels")
    return [[*labels[:-3], channel, FIXED, FIXED]]


@rule(aten.pixel_unshuffle)
def pixel_unshuffle(site: Site) -> list[Labels]:
    """(.., C, rH, rW) -> (.., C r r, H, W): the r x r block of a channel goes with it."""
    x, factor = site.arg(0), site.arg(1)
    labels = site.labels(x)
    for dim in labels[-2:]:
        site.freeze(dim, "gathers pixels of this dim")
    channels = site.atoms.merge((labels[-3], FIXED), (site.shape(x)[-3], factor**2))
    return [[*labels[:-3], channels, FIXED, FIXED]]


@rule(aten.glu)
def glu(site: Site) -> list[Labels]:
    """x = (value, gate) -> value * sigmoid(gate): index i of one half goes with index i of the other."""
    x = site.arg(0)
    labels, shape = list(site.labels(x)), site.shape(x)
    axis = site.arg(1, -1) % len(shape)
    half = shape[axis] // 2
    if labels[axis]:
        labels[axis] = site.unify(
            site.atoms.cut(labels[axis], 0, half), site.atoms.cut(labels[axis], half, 2 * half)
        )
    return [labels]


@rule(aten.channel_shuffle, aten.native_channel_shuffle)
def channel_shuffle(site: Site) -> list[Labels]:
    """(g, c/g) channels are transposed: index pairs tie across groups, the groups stay."""
    x, groups = site.arg(0), site.arg(1)
    labels, shape = list(site.labels(x)), site.shape(x)
    if labels[1]:
        group, place = site.atoms.reshape(labels[1], (groups, shape[1] // groups))
        site.facts.kinds.append(("group", group))
        site.require(site.size_expr(groups), group, "shuffles this number of groups")
        labels[1] = site.atoms.merge((place, group), (shape[1] // groups, groups))
    return [labels]


@rule(aten.as_strided_)
def restride(site: Site) -> list[Labels]:
    """Kernels lay their result out in another memory format; a user's own striding is not followed."""
    x = site.arg(0)
    if site.call.function.startswith("as_strided") or site.shape(x) != site.output_shape():
        return freeze_everything(site, "lays memory out by hand")
    return [list(site.labels(x))]
