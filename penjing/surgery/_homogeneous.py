"""Ops that let a factor through: what each asks of an input when its outputs must be scaled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.surgery._reshapes import runs

aten = torch.ops.aten
Need = torch.Tensor  # float64, size 1 where the factor does not vary, NaN where nothing reads


@dataclass(frozen=True, slots=True)
class Place:
    """One input value of one call."""

    graph: Graph
    call: OpCall
    value: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.graph.values[self.value].shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.graph.values[self.call.outputs[0]].shape

    def is_arg(self, position: int) -> bool:
        args = self.call.args
        return position < len(args) and isinstance(args[position], Ref) and args[position].value == self.value

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        args = self.call.args
        return args[position] if position < len(args) else self.call.kwargs.get(name, default)


Pull = Callable[[Place, list[Need]], Need | None]


@dataclass(frozen=True, slots=True)
class Homogeneous:
    """Scaling every tensor input scales the output; `numbers_allowed` unless a second argument is added. `joins` says
    that each input is a part of the output.
    """

    pull: Pull
    numbers_allowed: bool = True
    joins: bool = False


@dataclass(frozen=True, slots=True)
class Product:
    """Scaling one of the arguments `factors`, and every one of `addends`, scales the output."""

    pull: Pull
    factors: tuple[int, ...]
    addends: tuple[int, ...]


PULLS: dict[Any, Homogeneous] = {}
PRODUCTS: dict[Any, Product] = {}


def is_one(need: Need) -> bool:
    return bool(((need == 1) | need.isnan()).all())


def agreed(a: Need, b: Need) -> Need | None:
    """Both demands at once, or None where they differ."""
    a, b = torch.broadcast_tensors(a, b)
    if not (a.isnan() | b.isnan() | ((a - b).abs() <= 1e-12 * b.abs())).all():
        return None
    return compressed(torch.where(a.isnan(), b, a))


def compressed(need: Need) -> Need:
    """Dims along which the factor does not vary, narrowed to one index."""
    for dim in range(need.dim()):
        if need.shape[dim] > 1:
            first = need.narrow(dim, 0, 1)
            if ((need == first) | (need.isnan() & first.isnan())).all():
                need = first
    return need


def _without(need: Need, dim: int) -> Need | None:
    """The factor once for a dim that must not vary (elements that nothing reads follow the others)."""
    if need.shape[dim] == 1:
        return need
    filled = need.nan_to_num(nan=-1.0).amax(dim, keepdim=True)
    filled = torch.where(filled < 0, torch.nan, filled)
    return filled if agreed(need, filled) is not None else None


def _to_shape(need: Need | None, shape: Sequence[int]) -> Need | None:
    """Undo broadcasting: the factor over a tensor of `shape` that was broadcast to the factor's rank."""
    if need is None:
        return None
    for dim in range(need.dim() - len(shape)):
        need = _without(need, dim)
        if need is None:
            return None
    need = need.reshape(need.shape[need.dim() - len(shape) :])
    for dim, size in enumerate(shape):
        if size == 1:
            need = _without(need, dim)
            if need is None:
                return None
    return need


def _same(place: Place, needs: list[Need]) -> Need | None:
    return _to_shape(needs[0], place.shape)


def _view(place: Place, needs: list[Need]) -> Need | None:
    return reshaped(needs[0], place.output_shape, place.shape)


def reshaped(need: Need, old: Sequence[int], new: Sequence[int]) -> Need:
    """The factor over a reshaped tensor; only dims in which it varies are laid out."""
    if need.numel() == 1:
        return need.reshape([1] * len(new))
    full, target = [1] * len(old), [1] * len(new)
    for ins, outs in runs(old, new):
        if any(need.shape[k] > 1 for k in ins):
            for k in ins:
                full[k] = old[k]
            for k in outs:
                target[k] = new[k]
    return compressed(need.expand(full).reshape(target))


def _permute(place: Place, needs: list[Need]) -> Need | None:
    rank, packet = len(place.shape), place.call.op.overloadpacket
    if packet is aten.permute:
        order = [d % rank for d in place.arg(1, "dims")]
        return needs[0].permute([order.index(d) for d in range(rank)])
    if packet is aten.transpose:
        return needs[0].transpose(place.arg(1, "dim0"), place.arg(2, "dim1"))
    return needs[0].t()


def _expand(place: Place, needs: list[Need]) -> Need | None:
    return _to_shape(needs[0], place.shape)


def _select(place: Place, needs: list[Need]) -> Need | None:
    dim, index = place.arg(1, "dim", 0) % len(place.shape), place.arg(2, "index")
    return _scattered(needs[0].unsqueeze(dim), place.shape[dim], dim, [index % place.shape[dim]])


def _slice(place: Place, needs: list[Need]) -> Need | None:
    dim = place.arg(1, "dim", 0) % len(place.shape)
    size = place.shape[dim]
    start, stop, step = place.arg(2, "start"), place.arg(3, "end"), place.arg(4, "step", 1)
    return _scattered(needs[0], size, dim, list(range(size))[slice(start, stop, step)])


def _scattered(need: Need, size: int, dim: int, index: list[int]) -> Need:
    if index == list(range(size)):
        return need
    full = need.narrow(dim, 0, 1).repeat_interleave(size, dim) * torch.nan
    return compressed(full.index_copy(dim, torch.tensor(index), need.expand(_sized(need, dim, len(index)))))


def _sized(need: Need, dim: int, size: int) -> list[int]:
    return [size if d == dim else n for d, n in enumerate(need.shape)]


def _split(place: Place, needs: list[Need]) -> Need | None:
    position = 1 if place.call.op.overloadpacket is aten.unbind else 2
    dim = place.arg(position, "dim", 0) % len(place.shape)
    unbound = position == 1
    parts = [n.unsqueeze(dim) if unbound else n for n in needs]
    sizes = [1 if unbound else place.graph.values[o].shape[dim] for o in place.call.outputs]
    return _joined([p.expand(_sized(p, dim, n)) for p, n in zip(parts, sizes, strict=True)], dim)


def _joined(parts: list[Need], dim: int) -> Need:
    others = torch.broadcast_shapes(*[[n for d, n in enumerate(p.shape) if d != dim] for p in parts])
    grown = [p.expand([*others[:dim], p.shape[dim], *others[dim:]]) for p in parts]
    return compressed(torch.cat(grown, dim))


def _cat(place: Place, needs: list[Need]) -> Need | None:
    dim, need, start = place.arg(1, "dim", 0) % len(place.output_shape), needs[0], 0
    found: Need | None = None
    for ref in place.call.args[0]:
        size = place.graph.values[ref.value].shape[dim]
        if ref.value == place.value:
            part = need if need.shape[dim] == 1 else compressed(need.narrow(dim, start, size))
            found = part if found is None else agreed(found, part)
            if found is None:
                return None
        start += size
    return found


def _stack(place: Place, needs: list[Need]) -> Need | None:
    dim = place.arg(1, "dim", 0) % len(place.output_shape)
    at = [i for i, ref in enumerate(place.call.args[0]) if ref.value == place.value]
    picked = [needs[0].select(dim, min(i, needs[0].shape[dim] - 1)) for i in at]
    return picked[0] if len(picked) == 1 else None


def _sum(place: Place, needs: list[Need]) -> Need | None:
    if needs[0].dim() == len(place.shape):
        return needs[0]
    axes = place.arg(1, "dim") or range(len(place.shape))
    need = needs[0]
    for axis in sorted(a % len(place.shape) for a in ([axes] if isinstance(axes, int) else axes)):
        need = need.unsqueeze(axis)
    return need


def _spatial(place: Place, needs: list[Need]) -> Need | None:
    """The factor must not vary over the places an op mixes: everything but batch and channels."""
    need: Need | None = needs[0]
    for dim in range(2, len(place.shape)):
        need = None if need is None else _without(need, dim)
    return need


def _uniform(place: Place, needs: list[Need]) -> Need | None:
    return needs[0].reshape([1] * len(place.shape)) if needs[0].numel() == 1 else None


def _as_complex(place: Place, needs: list[Need]) -> Need | None:
    return needs[0].unsqueeze(-1)


def _as_real(place: Place, needs: list[Need]) -> Need | None:
    found = _without(needs[0], needs[0].dim() - 1)
    return None if found is None else found.squeeze(-1)


def _matrix(place: Place, needs: list[Need]) -> Need | None:
    """(.., m, n) = (.., m, k) @ (.., k, n), perhaps with an addend."""
    first = PRODUCTS[place.call.op.overloadpacket].factors[0]
    if first and place.is_arg(0):
        return _to_shape(needs[0], place.shape)
    return _without(needs[0], needs[0].dim() - (1 if place.is_arg(first) else 2))


def _convolution(place: Place, needs: list[Need]) -> Need | None:
    need = _spatial(Place(place.graph, place.call, place.call.outputs[0]), needs)
    need = None if need is None else _without(need, 0)
    if need is None:
        return None
    if place.is_arg(2):
        return need.flatten()
    if place.is_arg(0):
        return need if need.numel() == 1 else None
    transposed = bool(place.arg(6, "transposed"))
    if not transposed:
        return need.transpose(0, 1)
    return need if int(place.arg(8, "groups")) == 1 or need.numel() == 1 else None


def _affine_over_channels(place: Place, needs: list[Need]) -> Need | None:
    need: Need | None = needs[0]
    for dim in (d for d in range(needs[0].dim()) if d != 1):
        need = None if need is None else _without(need, dim)
    return None if need is None else need.flatten()


def _affine_over_last(place: Place, needs: list[Need]) -> Need | None:
    return _to_shape(needs[0], place.shape)


def _table(place: Place, needs: list[Need]) -> Need | None:
    need: Need | None = needs[0]
    for dim in range(needs[0].dim() - 1):
        need = None if need is None else _without(need, dim)
    return None if need is None else need.reshape(1, -1)


def _homogeneous(pull: Pull, *packets: Any, numbers_allowed: bool = True, joins: bool = False) -> None:
    PULLS.update(dict.fromkeys(packets, Homogeneous(pull, numbers_allowed, joins)))


_homogeneous(
    _same, aten.clone, aten.alias, aten.detach, aten._to_copy, aten.neg, aten.relu, aten.relu_, aten.leaky_relu,
    aten.abs, aten.lift_fresh, aten.native_dropout, aten.as_strided_,
)  # fmt: skip
_homogeneous(_same, aten.add, aten.add_, aten.sub, aten.sub_, numbers_allowed=False)
_homogeneous(
    _view, aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.unsqueeze, aten.squeeze
)
_homogeneous(_permute, aten.permute, aten.transpose, aten.t)
_homogeneous(_expand, aten.expand)
_homogeneous(_select, aten.select)
_homogeneous(_slice, aten.slice)
_homogeneous(
    _split, aten.split, aten.split_with_sizes, aten.unbind, aten.unsafe_split, aten.unsafe_split_with_sizes
)
_homogeneous(_cat, aten.cat, joins=True)
_homogeneous(_stack, aten.stack, joins=True)
_homogeneous(_sum, aten.sum, aten.mean)
_homogeneous(
    _spatial, aten.avg_pool2d, aten.avg_pool1d, aten._adaptive_avg_pool2d, aten.max_pool2d_with_indices,
    aten.upsample_nearest2d, aten.upsample_bilinear2d,
)  # fmt: skip
_homogeneous(_uniform, aten.flip, aten.roll, aten.repeat, aten.index_select, aten.cumsum, aten.gather)
_homogeneous(_as_complex, aten.view_as_complex)
_homogeneous(_as_real, aten.view_as_real)


def _product(pull: Pull, factors: tuple[int, ...], addends: tuple[int, ...], *packets: Any) -> None:
    PRODUCTS.update(dict.fromkeys(packets, Product(pull, factors, addends)))


_product(_same, (0, 1), (), aten.mul, aten.mul_)
_product(_same, (0,), (), aten.div, aten.div_)
_product(_matrix, (0, 1), (), aten.mm, aten.bmm)
_product(_matrix, (1, 2), (0,), aten.addmm, aten.baddbmm)
_product(_convolution, (0, 1), (2,), aten.convolution)
_product(_affine_over_last, (2,), (3,), aten.native_layer_norm, aten._fused_rms_norm)
_product(_affine_over_channels, (1,), (2,), aten.native_group_norm, aten.native_batch_norm,
         aten._native_batch_norm_legit_no_training)  # fmt: skip
_product(_table, (0,), (), aten.embedding)
