"""Ops that cut tensors apart and join them."""

import numpy as np
import torch

from penjing.core._graph import Ref
from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._network._provenance import Arith, Const, Expr, Size, leaves
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten

USER_SPLITS = {"split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "hsplit", "vsplit"}


@rule(aten.cat)
def cat(site: Site) -> list[Labels]:
    """Labels one after another along `dim`; elsewhere all inputs share their dims."""
    refs = [r for r in site.arg(0) if site.shape(r) != (0,)]
    shape = site.output_shape()
    dim = site.arg(1, 0) % len(shape)
    output = fixed(shape)
    for axis in range(len(shape)):
        if axis == dim:
            output[axis] = joined(
                site, [site.labels(r)[axis] for r in refs], [site.shape(r)[axis] for r in refs]
            )
            continue
        output[axis] = site.labels(refs[0])[axis]
        for ref in refs[1:]:
            output[axis] = site.unify(output[axis], site.labels(ref)[axis])
    return [output]


def joined(site: Site, dims: list[Dim], sizes: list[int]) -> Dim:
    if not any(dims):
        return FIXED
    dims = [
        site.atoms.expand(d) if d else d for d in dims
    ]  # a column that froze says nothing next to a free one
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
    pieces = [site.atoms.cut(whole[dim], end - size, end) for size, end in zip(sizes, ends, strict=True)]
    for position, (size, piece) in enumerate(zip(sizes, pieces, strict=True)):
        expr = _piece_size(site, x, dim, position)
        alike = tuple(
            other for other, n in zip(pieces, sizes, strict=True) if n == size and other is not piece
        )
        site.require(expr, piece, "splits into pieces of this size", alike)
    return [[piece if a == dim else d for a, d in enumerate(whole)] for piece in pieces]


def _piece_size(site: Site, x: Ref, dim: int, position: int) -> Expr | None:
    """How the code sizes piece `position`: by its own entry of a list of sizes, else by a common size or a count."""
    function, outputs = site.call.function, site.call.outputs
    size = site.output_shape(position)[dim]
    given = site.call.sizes[: len(outputs)]
    if function in USER_SPLITS and [v for v, _ in given] == [
        site.output_shape(i)[dim] for i in range(len(outputs))
    ]:
        return given[position][1]
    if function not in USER_SPLITS:
        chunks = function in ("chunk", "unsafe_chunk", "tensor_split") and site.call.sizes
        count = site.call.sizes[0][1] if chunks else Const(len(site.call.outputs))
        whole = Size(x.value, dim)
        ceiling = Arith("floordiv", Arith("sub", Arith("add", whole, count), Const(1)), count)
        parts = len(site.call.outputs)
        last = position == parts - 1
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
    if own and step > 1 and size % step == 0 and first < step and size - last < step - first:
        labels[dim] = _runs(site, own, size // step, step)
        return [labels]
    count = _sections(site, dim, first, last)
    if own and count:
        labels[dim] = _section(site, dim, count, first // (size // count))
        return [labels]
    if own and (first, last, step) != (0, size, 1):
        if step != 1:
            site.freeze(own, "takes every n-th index")
        _keep_place(site, own, size, first, start)
        _keep_place(site, own, size, last, stop)
        _leave_out(site, own, (first, start), (last, stop))
    labels[dim] = site.atoms.cut(own, first, last) if step == 1 else tuple(c[first:last:step] for c in own)
    return [labels]


_SECTIONED = {"tensor_split": 2, "hsplit": 1, "vsplit": 1, "dsplit": 1}  # with how many integers: a dim, too


def _sections(site: Site, dim: int, first: int, last: int) -> int:
    """Into how many equal pieces the user's code cuts, of which this is one; 0 where it names places."""
    given, shape = site.call.sizes, site.shape(site.arg(0))
    if not given or len(given) > _SECTIONED.get(site.call.function, 0):
        return 0
    count = given[0][0]
    dims = all(value % len(shape) == dim for value, _ in given[1:])
    pieces = dims and 1 < count < shape[dim] and shape[dim] % count == 0
    width = shape[dim] // count if pieces else 0
    return (
        count if width and first % width == 0 and last - first == width and count not in (first, last) else 0
    )


def _section(site: Site, dim: int, count: int, position: int) -> Dim:
    x = site.arg(0)
    own, width = site.labels(x)[dim], site.shape(x)[dim] // count
    pieces = [site.atoms.cut(own, i * width, (i + 1) * width) for i in range(count)]
    expr = Arith("floordiv", Size(x.value, dim), site.call.sizes[0][1])
    others = tuple(piece for i, piece in enumerate(pieces) if i != position)
    site.require(expr, pieces[position], "splits into pieces of this size", others)
    return pieces[position]


def _runs(site: Site, own: Dim, count: int, step: int) -> Dim:
    """Every n-th index: each run of n goes as one."""
    runs, places = site.atoms.reshape(own, (count, step))
    site.freeze(places, "takes every n-th index")
    return runs


def _leave_out(site: Site, own: Dim, *places: tuple[int, int | None]) -> None:
    """Other inputs may read what this slice leaves out: of tables, or where a size says how much it keeps.

    Of data cut elsewhere, they may where channels were flattened with their places.
    """
    sized = (leaf for _, given in places if given for leaf in leaves(site.size_expr(given)))
    moves = site.arg(0).value not in site.facts.data or any(isinstance(leaf, Size) for leaf in sized)
    cuts = site.facts.cuts if moves else site.facts.data_cuts
    cuts.append((own, places[0][0], places[1][0]))


def _keep_place(site: Site, own: Dim, size: int, place: int, given: int | None) -> None:
    """Two halves may be tied index by index, as those of `chunk` are."""
    if place in (0, size) or given is None:
        return
    before, behind = site.atoms.cut(own, 0, place), site.atoms.cut(own, place, size)
    expr, kept, other = site.size_expr(given), before, behind
    if given < 0:
        expr, kept, other = _negated(expr), behind, before
    site.require(expr, kept, "cuts at this index", (other,) if 2 * place == size else ())


def _negated(expr: Expr) -> Expr:
    return Const(-expr.value) if isinstance(expr, Const) else Arith("sub", Const(0), expr)


@rule(aten.select, aten.select_copy)
def select(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    axis = site.arg(1) % len(labels)
    chosen = labels.pop(axis)
    ends = site.arg(2) in (0, -1)
    if chosen and not (ends and (site.call.outputs[0] not in site.facts.used or _is_uniform(site, axis))):
        site.freeze(chosen, "picks one index of this dim")
    return [labels]


_UNIFORM = frozenset({
    aten.zeros_like, aten.ones_like, aten.full_like, aten.new_zeros, aten.new_ones, aten.new_full, aten.zeros,
    aten.ones, aten.full,
})  # fmt: skip


def _is_uniform(site: Site, axis: int) -> bool:
    """Whether every index along a dim holds the same: a tensor of one number, or one that was expanded there."""
    made = site.maker(site.arg(0).value)
    while made is not None and made.op.overloadpacket in (aten.detach, aten.alias):
        made = site.maker(made.inputs[0])
    if made is None:
        return False
    if made.op.overloadpacket is aten.expand:
        before, rank = site.shape(Ref(made.inputs[0])), len(site.shape(site.arg(0)))
        return axis < rank - len(before) or before[axis - rank] == 1
    return made.op.overloadpacket in _UNIFORM


@rule(aten.unbind, aten.unbind_copy)
def unbind(site: Site) -> list[Labels]:
    labels = list(site.labels(site.arg(0)))
    site.freeze(labels.pop(site.arg(1, 0) % len(labels)), "takes this dim apart")
    return [list(labels) for _ in site.call.outputs]


@rule(aten._pack_padded_sequence)
def pack(site: Site) -> list[Labels]:
    """Sequences of different lengths, laid out step by step: features go through."""
    labels = site.labels(site.arg(0))
    for dim in labels[:2]:
        site.freeze(dim, "packs sequences")
    return [[FIXED, *labels[2:]], [FIXED]]


@rule(aten._pad_packed_sequence)
def unpack(site: Site) -> list[Labels]:
    labels = site.labels(site.arg(0))
    site.freeze(labels[0], "unpacks sequences")
    return [[FIXED, FIXED, *labels[1:]], [FIXED]]
