"""Ops that move elements: reshapes, permutations, cuts and joins."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from penjing.core._graph import Ref
from penjing.structure._atoms import FIXED, Dim
from penjing.structure._provenance import Arith, Const, Expr, Size
from penjing.structure._rules._elementwise import freeze_everything, sized_by
from penjing.structure._rules._registry import Labels, Site, fixed, merge_dims, rule

aten = torch.ops.aten

USER_SPLITS = {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "hsplit", "vsplit"}
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
            continue
        flat = merge_dims(dims, sizes)
        parts = [flat] if len(outs) == 1 else site.atoms.reshape(flat, [new[a] for a in outs])
        for axis, part in zip(outs, parts, strict=True):
            output[axis] = part
            site.require(_asked(site, new, axis), part, f"reshapes to {list(new)} with a literal size")
    return [output]


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
    if call.function in ("view", "reshape") and len(given) == len(new):
        if all(v in (-1, n) for (v, _), n in zip(given, new, strict=True)):
            value, expr = given[axis]
            return None if value == -1 else expr
    if call.function in ("view_as", "reshape_as"):
        return None
    if (
        call.function == "unflatten"
        and (-1, Const(-1)) in call.sizes[1:]
        and new[axis] not in {v for v, _ in call.sizes[1:]}
    ):
        return None
    return site.size_expr(new[axis])


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
        if old[-axis] == new[-axis]:
            output[-axis] = labels[-axis]
            sizes = site.arg(1)
            if site.call.function == "expand" and sizes[-axis] != -1:
                site.require(site.size_expr(new[-axis]), labels[-axis], "expands to a literal size")
        elif old[-axis] == 1:
            output[-axis] = _repeated(site, new[-axis])
    return [output]


def _repeated(site: Site, size: int) -> Dim:
    """Labels of an axis that repeats a single index: free where a library function sizes it by its own inputs."""
    return sized_by(site, size) if site.call.function == "expand" else (site.atoms.fresh(size),)


@rule(aten.cat)
def cat(site: Site) -> list[Labels]:
    """Labels one after another along `dim`; elsewhere all inputs share their dims."""
    refs = [r for r in site.arg(0) if site.shape(r) != (0,)]
    shape = site.output_shape()
    dim = site.arg(1, 0) % len(shape)
    output = fixed(shape)
    for axis in range(len(shape)):
        if axis == dim:
            output[axis] = _joined(
                site, [site.labels(r)[axis] for r in refs], [site.shape(r)[axis] for r in refs]
            )
            continue
        output[axis] = site.labels(refs[0])[axis]
        for ref in refs[1:]:
            output[axis] = site.unify(output[axis], site.labels(ref)[axis])
    return [output]


def _joined(site: Site, dims: list[Dim], sizes: list[int]) -> Dim:
    if not any(dims):
        return FIXED
    dims = [site.atoms.expand(d) if d else d for d in dims]  # a column that froze says nothing next to a free one
    width = max(len(d) for d in dims)
    still = site.atoms.frozen(site.because("joins a part of fixed size"))
    columns: list[list[np.ndarray]] = [[] for _ in range(width)]
    for dim, size in zip(dims, sizes, strict=True):
        own = dim or (np.full(size, still, dtype=np.int64),)
        for i in range(width):
            columns[i].append(own[min(i, len(own) - 1)])
    return tuple(np.concatenate(c) for c in columns)


@rule(aten.stack)
def stack(site: Site) -> list[Labels]:
    refs = site.arg(0)
    labels = list(site.labels(refs[0]))
    for ref in refs[1:]:
        labels = [site.unify(a, b) for a, b in zip(labels, site.labels(ref), strict=True)]
    labels.insert(site.arg(1, 0) % (len(labels) + 1), FIXED)
    return [labels]


@rule(
    aten.split,
    aten.split_with_sizes,
    aten.unsafe_split,
    aten.unsafe_split_with_sizes,
    aten.chunk,
    aten.split_copy,
)
def split(site: Site) -> list[Labels]:
    """Pieces carry their part of the labels; each piece must keep the size the code asks for."""
    x = site.arg(0)
    rank = len(site.shape(x))
    dim = site.arg(2, 0) % rank
    whole = site.labels(x)
    sizes = [site.output_shape(position)[dim] for position in range(len(site.call.outputs))]
    ends = np.cumsum(sizes).tolist()
    pieces = [cut(whole[dim], end - size, end) for size, end in zip(sizes, ends, strict=True)]
    for position, (size, piece) in enumerate(zip(sizes, pieces, strict=True)):
        expr = _piece_size(site, x, dim, size, position == len(sizes) - 1)
        alike = tuple(
            other for other, n in zip(pieces, sizes, strict=True) if n == size and other is not piece
        )
        site.require(expr, piece, "splits into pieces of this size", alike)
    return [[piece if a == dim else d for a, d in enumerate(whole)] for piece in pieces]


def cut(dim: Dim, start: int, stop: int, step: int = 1) -> Dim:
    return tuple(c[start:stop:step] for c in dim)


def _piece_size(site: Site, x: Ref, dim: int, size: int, last: bool) -> Expr | None:
    function = site.call.function
    if function not in USER_SPLITS:
        chunks = function in ("chunk", "unsafe_chunk", "tensor_split") and site.call.sizes
        count = site.call.sizes[0][1] if chunks else Const(len(site.call.outputs))
        whole = Size(x.value, dim)
        ceiling = Arith("floordiv", Arith("sub", Arith("add", whole, count), Const(1)), count)
        parts = len(site.call.outputs)
        return Arith("sub", whole, Arith("mul", ceiling, Const(parts - 1))) if last else ceiling
    return site.size_expr(size)


@rule(aten.slice, aten.narrow, aten.slice_copy)
def slice_(site: Site) -> list[Labels]:
    """A cut at computed or literal places: what lies before each place must keep its count."""
    x = site.arg(0)
    labels, shape = list(site.labels(x)), site.shape(x)
    dim = site.arg(1, 0) % len(shape)
    size, own = shape[dim], labels[dim]
    if site.call.op.overloadpacket is aten.narrow:
        start, stop, step = site.arg(2), site.arg(2) + site.arg(3), 1
    else:
        start, stop, step = site.arg(2), site.arg(3), site.arg(4, 1)
    first, last, _ = slice(start, stop, step).indices(size)
    if own and (first, last, step) != (0, size, 1):
        if step != 1:
            site.freeze(own, "takes every n-th index")
        _keep_place(site, own, size, first, start)
        _keep_place(site, own, size, last, stop)
    labels[dim] = cut(own, first, last, step)
    return [labels]


def _keep_place(site: Site, own: Dim, size: int, place: int, given: int | None) -> None:
    if place in (0, size) or given is None:
        return
    if given < 0:
        site.require(_negated(site.size_expr(given)), cut(own, place, size), "cuts at a literal index")
    else:
        site.require(site.size_expr(given), cut(own, 0, place), "cuts at a literal index")


def _negated(expr: Expr) -> Expr:
    return Arith("sub", Const(0), expr)


@rule(aten.select, aten.select_copy)
def select(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    axis = site.arg(1) % len(labels)
    site.freeze(labels.pop(axis), "picks one index of this dim")
    return [labels]


@rule(aten.unbind, aten.unbind_copy)
def unbind(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    site.freeze(labels.pop(site.arg(1, 0) % len(labels)), "takes this dim apart")
    return [list(labels) for _ in site.call.outputs]


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
        labels[axis] = _joined(site, [FIXED, labels[axis], FIXED], sizes)
    return [labels]


@rule(aten.repeat)
def repeat(site: Site) -> list[Labels]:
    x = site.arg(0)
    times, labels = site.arg(1), site.labels(x)
    padded = [FIXED] * (len(times) - len(labels)) + list(labels)
    return [[tuple(np.tile(c, n) for c in d) for d, n in zip(padded, times, strict=True)]]


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
    channels = merge_dims((labels[-3], FIXED), (site.shape(x)[-3], factor**2))
    return [[*labels[:-3], channels, FIXED, FIXED]]


@rule(aten.glu)
def glu(site: Site) -> list[Labels]:
    """x = (value, gate) -> value * sigmoid(gate): index i of one half goes with index i of the other."""
    x = site.arg(0)
    labels, shape = list(site.labels(x)), site.shape(x)
    axis = site.arg(1, -1) % len(shape)
    half = shape[axis] // 2
    if labels[axis]:
        labels[axis] = site.unify(cut(labels[axis], 0, half), cut(labels[axis], half, 2 * half))
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
        labels[1] = merge_dims((place, group), (shape[1] // groups, groups))
    return [labels]


@rule(aten.as_strided_)
def restride(site: Site) -> list[Labels]:
    """Kernels lay their result out in another memory format; a user's own striding is not followed."""
    x = site.arg(0)
    if site.call.function.startswith("as_strided") or site.shape(x) != site.output_shape():
        return freeze_everything(site, "lays memory out by hand")
    return [list(site.labels(x))]


@rule(aten.as_strided, aten.diagonal, aten.unfold, aten.im2col, aten.col2im, aten.gather,
      aten.scatter, aten.scatter_, aten.index_put, aten.index_put_, aten.index_select, aten.sort, aten.topk,
      aten.nonzero, aten.grid_sampler_2d, aten.multinomial, aten.cumprod, aten.slice_scatter, aten.select_scatter)  # fmt: skip
def stays(site: Site) -> list[Labels]:
    """Known ops whose dims are not followed: what they touch stays."""
    return freeze_everything(site, "rearranges indices in a way that is not followed")


@rule(aten.index, aten._unsafe_index)
def index(site: Site) -> list[Labels]:
    """Indexed dims stay; the others go on. Index dims stand at the first indexed place, or in front when split."""
    x, indices = site.arg(0), site.arg(1)
    labels = site.labels(x)
    taken = [i for i, r in enumerate(indices) if isinstance(r, Ref)]
    if any(len(site.shape(indices[i])) and _is_bool(site, indices[i]) for i in taken):
        return freeze_everything(site, "indexes with a mask")
    for i in taken:
        site.freeze(labels[i], "is indexed by position")
        for dim in site.labels(indices[i]):
            site.freeze(dim, "holds positions")
    rank = max(len(site.shape(indices[i])) for i in taken)
    others = [d for i, d in enumerate(labels) if i not in taken]
    adjacent = taken == list(range(taken[0], taken[-1] + 1))
    place = taken[0] if adjacent else 0
    return [[*others[:place], *([FIXED] * rank), *others[place:]]]


def _is_bool(site: Site, ref: Any) -> bool:
    return site.graph.values[ref.value].dtype in ("torch.bool", "torch.uint8")


@rule(aten.embedding)
def embedding(site: Site) -> list[Labels]:
    """A row per token id: the ids stay, the embedding width may shrink."""
    weight, ids = site.labels(site.arg(0)), site.shape(site.arg(1))
    site.freeze(weight[0], "looks rows up by id")
    for dim in site.labels(site.arg(1)):
        site.freeze(dim, "holds ids")
    return [[*fixed(ids), weight[1]]]
