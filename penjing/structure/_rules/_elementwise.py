"""Ops that keep the place of every element: pointwise, copies, factories."""

import numpy as np
import torch

from penjing.core._graph import Ref
from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._network._provenance import Const, Expr, Size
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten


@rule(
    aten.clone, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh, aten.lift_fresh_copy, aten.native_dropout,
    aten.copy_, aten.copy, aten.bernoulli_, aten.bernoulli, aten.dropout, aten.hardswish, aten.hardswish_,
    aten.masked_fill, aten.masked_fill_, aten.where, aten.nan_to_num, aten.uniform_, aten.normal_,
    aten.rand_like, aten.randn_like, aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like,
    aten._neg_view, aten.fill, aten.fill_, aten.zero_, aten.threshold, aten.threshold_, aten._prelu_kernel,
    aten.floor_divide, aten.rrelu_with_noise, aten.rrelu_with_noise_,
    aten.broadcast_tensors,
)  # fmt: skip
def pointwise(site: Site) -> list[Labels]:
    """Broadcast all inputs; dims of equal size are the same dim."""
    return [_broadcast(site, position) for position in range(len(site.call.outputs))]


def _broadcast(site: Site, position: int) -> Labels:
    shape = site.output_shape(position)
    labels = fixed(shape)
    met = [False] * len(shape)
    for ref in site.tensors():
        own, sizes = site.labels(ref), site.shape(ref)
        for axis in range(1, min(len(shape), len(sizes)) + 1):
            if sizes[-axis] != shape[-axis] or shape[-axis] == 1:
                continue
            labels[-axis] = site.unify(labels[-axis], own[-axis]) if met[-axis] else own[-axis]
            met[-axis] = True
    return labels


@rule(
    aten.empty, aten.zeros, aten.ones, aten.full, aten.scalar_tensor, aten.rand, aten.randn, aten.randint,
    aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty, aten.empty_strided, aten.new_empty_strided,
)  # fmt: skip
def factory(site: Site) -> list[Labels]:
    """A new tensor; a dim sized by a labelled dim carries its labels, one sized by an attribute follows it.

    One made inside another function is sized by that function's own inputs, whatever they are.
    """
    shape, function = site.output_shape(), site.call.function
    if function and function.strip("_") not in _MAKES_TENSORS:
        return [[(site.atoms.fresh(n),) if n > 1 else FIXED for n in shape]]
    return [[sized_as(site, n, expr) for n, expr in zip(shape, site.size_exprs(shape), strict=True)]]


_MAKES_TENSORS = {
    "empty", "zeros", "ones", "full", "scalar_tensor", "rand", "randn", "eye", "randint", "new_zeros", "new_ones",
    "new_full", "new_empty", "empty_strided", "new_empty_strided", "tensor", "as_tensor", "new_tensor", "?",
}  # fmt: skip


@rule(aten.arange, aten.linspace, aten.logspace, aten.randperm, aten.tril_indices, aten.triu_indices)
def numbering(site: Site) -> list[Labels]:
    """Values that depend on how many there are: what their number is read from must keep its count."""
    shape, why = site.output_shape(), "numbers the indices of a dim"
    if site.call.function == "one_hot":
        classes = sized_by(site, shape[0])
        site.facts.places[site.call.outputs[0]] = classes
        return [[classes]]
    if site.call.function != site.call.op.overloadpacket.__name__:
        return [fixed(shape)]
    read = [(value, expr) for value, expr in site.call.sizes if not isinstance(expr, Const)]
    for value, expr in read:
        site.keep(expr, value, why)
    still = site.atoms.frozen(site.because(why))
    return [[(np.full(n, still, dtype=np.int64),) if read else FIXED for n in shape]]


def sized_by(site: Site, size: int) -> Dim:
    """Labels of the dim that a size was read from, none for other sizes."""
    return sized_as(site, size, site.size_expr(size))


def sized_as(site: Site, size: int, expr: Expr) -> Dim:
    """The same with the size's provenance at hand."""
    if isinstance(expr, Size):
        return site.facts.labels[expr.value][expr.dim]
    if isinstance(expr, Const) or size < 2:
        return FIXED
    new = (site.atoms.fresh(size),)
    site.require(expr, new)
    return new


@rule(
    aten._local_scalar_dense,
    aten._is_all_true,
    aten._is_any_true,
    aten.equal,
    aten.is_nonzero,
    aten.item,
    aten.allclose,
)
def reads_values(site: Site) -> list[Labels]:
    for ref in site.tensors():
        for dim in site.labels(ref):
            site.freeze(dim, "reads its values")
    return [fixed(site.output_shape(i)) for i in range(len(site.call.outputs))]


def unknown(site: Site) -> list[Labels]:
    """An op without a rule: everything it touches stays, and the op is named to the user."""
    site.facts.unknown.setdefault(str(site.call.op), site.call.module)
    return freeze_everything(site, "has no rule yet")


def freeze_everything(site: Site, why: str) -> list[Labels]:
    for value in site.call.inputs:
        for dim in site.labels(Ref(value)):
            site.freeze(dim, why)
    return [fixed(site.output_shape(i)) for i in range(len(site.call.outputs))]
