"""Integers that say places in a dim: which experts a router chose, and what is then read at those places.

Where a dim shrinks, the places that an op computes anew follow it: index i of the smaller dim stands for the i-th kept
index. A place reaches other tensors through ops that move values about without changing them.
"""

from typing import Any

import torch

from penjing.core._graph import Ref
from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._network._provenance import Arith, Const, Size
from penjing.structure._rules._elementwise import freeze_everything
from penjing.structure._rules._registry import Labels, Requirement, Site, fixed, rule

aten = torch.ops.aten

_CARRY = frozenset({
    aten.view, aten._unsafe_view, aten.reshape, aten.clone, aten.detach, aten.alias, aten._to_copy, aten.sort,
    aten.index, aten.select, aten.slice, aten.unsqueeze, aten.squeeze, aten.transpose, aten.permute, aten.t,
    aten.expand, aten.unbind, aten.split, aten.split_with_sizes, aten.gather, aten.index_select, aten.lift_fresh,
})  # fmt: skip


_READ = frozenset({
    aten.index_put, aten.index_put_, aten.scatter, aten.scatter_, aten.scatter_add, aten.scatter_add_, aten.embedding,
    aten.scatter_reduce, aten.scatter_reduce_, aten._unsafe_index, aten.histc, aten.zeros_like, aten.ones_like,
    aten.empty_like, aten.full_like,
})  # fmt: skip


def carry_places(site: Site) -> None:
    """Ops that only move values leave them places in the same dim; where code computes with them, the dim stays.

    (An op that reads or writes *at* places speaks for itself.) Compared with the numbers of all places (one-hot),
    both speak of one dim.
    """
    places, packet = site.facts.places, site.call.op.overloadpacket
    told = [places[value] for value in site.call.inputs if value in places]
    if not told:
        return
    if packet in _CARRY:
        own = places.get(site.call.inputs[0])
        if own is not None:
            kept = site.call.outputs[:1] if packet is aten.sort else site.call.outputs
            places.update(dict.fromkeys(kept, own))
    elif packet is aten.eq and len(told) == 2:
        _same_places(site, *sorted(told, key=_count))
    elif packet not in _READ:
        for dim in told:
            site.freeze(dim, "computes with the numbers of these indices (experts told apart by number)")


def _count(dim: Dim) -> int:
    return len(dim[0]) if dim else 0


def _same_places(site: Site, fewer: Dim, more: Dim) -> None:
    """Places of both count from 0; what one numbers beyond the other (a class for 'none') stays."""
    count = _count(fewer)
    site.unify(fewer, site.atoms.cut(more, 0, count))
    if count < _count(more):
        site.freeze(site.atoms.cut(more, count, _count(more)), "numbers more places than there are")


def at_places(site: Site, dim: Dim, places: Any, why: str) -> Dim:
    """A dim read or written at `places`: the dim they speak of, or it stays."""
    told = site.facts.places.get(places.value)
    if told and dim:
        return site.unify(dim, told, why)
    site.freeze(dim, why)
    if told:
        site.freeze(told, why)
    return FIXED


@rule(aten.topk)
def topk(site: Site) -> list[Labels]:
    """The largest of what is kept, and their places: a router that chooses experts."""
    x = site.arg(0)
    labels = list(site.labels(x))
    if not labels:
        return [[], []]
    axis = int(site.arg(2, -1)) % len(labels)
    chosen = labels[axis]
    labels[axis] = FIXED
    if chosen:
        if site.arg(3, True):
            site.renormalize(x, axis)
            enough = Arith("ge", Size(x.value, axis), Const(int(site.arg(1))))
            why = site.because("takes this many of them")
            site.facts.requirements.append(Requirement(enough, FIXED, why, size=1))
            site.facts.kinds.append(("expert", chosen))
            site.facts.places[site.call.outputs[1]] = chosen
        else:
            site.freeze(chosen, "takes the smallest of this dim")
    return [labels, list(labels)]


@rule(aten.histc)
def histc(site: Site) -> list[Labels]:
    """How often each place occurs; other histograms stay."""
    x, bins, low, high = site.arg(0), site.arg(1, 100), site.arg(2, 0), site.arg(3, 0)
    told = site.facts.places.get(x.value)
    if not told or (low, high) != (0, bins - 1) or len(told[0]) != bins:
        return freeze_everything(site, "counts values of any dim")
    for dim in site.labels(x):
        site.freeze(dim, "counts over this dim")
    expr = site.size_expr(bins)
    site.require(expr, told, "counts a literal number of places")
    return [[told]] if not isinstance(expr, Const) else [fixed(site.output_shape())]


@rule(aten._grouped_mm)
def grouped_mm(site: Site) -> list[Labels]:
    """Rows sorted by group meet their group's matrix: (s, k), (g, k, n), ends of the groups (g) -> (s, n)."""
    x, weight, ends = site.arg(0), site.arg(1), site.arg(2)
    if len(site.shape(x)) != 2 or len(site.shape(weight)) != 3 or not isinstance(ends, Ref):
        return freeze_everything(site, "multiplies groups in a layout that is not followed")
    rows, inner = site.labels(x)
    group, other, out = site.labels(weight)
    site.freeze(rows, "runs over these rows by group")
    site.unify(inner, other)
    site.unify(group, site.labels(ends)[0])
    site.reduce(x, 1)
    site.reduce(weight, 1)
    return [[rows, out]]
