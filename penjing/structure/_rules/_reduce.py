"""Ops that span a dim: reductions, normalisations, softmax, pooling."""

from typing import Any

import torch

from penjing.core._graph import Ref
from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten


@rule(aten.sum, aten.nansum, aten.count_nonzero, aten.linalg_vector_norm, aten.norm)
def total(site: Site) -> list[Labels]:
    """Of activations exact; of parameters alone (a norm that scales a weight) it is a statistic of what is kept."""
    x = site.arg(0)
    normed = site.call.op.overloadpacket in (aten.linalg_vector_norm, aten.norm)
    order = site.arg(1, 2) if normed else None
    if isinstance(order, (int, float)) and order < 0:
        return _extremes(site)
    if x.value not in site.facts.data:
        axes, _ = _axes(site, len(site.shape(x)))
        site.facts.renormalized.extend(c for a in axes for c in site.labels(x)[a])
    return _over(site, renormalized=False)


@rule(aten.mean, aten.amax, aten.amin, aten.var, aten.std, aten.var_mean, aten.std_mean, aten.logsumexp, aten.any,
      aten.all, aten.prod, aten.aminmax)  # fmt: skip
def statistic(site: Site) -> list[Labels]:
    if site.call.function == "rms_norm":
        _normalised_shape(site)
    return _over(site, renormalized=True)


def _normalised_shape(site: Site) -> None:
    """`F.rms_norm` refuses a weight whose size is not the normalized_shape it is called with."""
    x = site.arg(0)
    for axis in _axes(site, len(site.shape(x)))[0]:
        size = site.shape(x)[axis]
        site.require(site.size_expr(size), site.labels(x)[axis], "normalises over this size")


def _over(site: Site, renormalized: bool) -> list[Labels]:
    x = site.arg(0)
    labels, shape = site.labels(x), site.shape(x)
    axes, keep = _axes(site, len(shape))
    for axis in axes:
        if renormalized:
            site.renormalize(x, axis)
        else:
            site.reduce(x, axis)
    out = [FIXED if a in axes else d for a, d in enumerate(labels) if keep or a not in axes]
    return [list(out) for _ in site.call.outputs]


def _axes(site: Site, rank: int) -> tuple[list[int], bool]:
    names = [a.name for a in site.call.op._schema.arguments]
    dims = site.arg(names.index("dim")) if "dim" in names else None
    keep = bool(site.arg(names.index("keepdim"), False)) if "keepdim" in names else False
    if dims is None or dims == ():
        return list(range(rank)), keep
    return [d % rank for d in ((dims,) if isinstance(dims, int) else dims)], keep


@rule(aten._softmax, aten._log_softmax, aten._safe_softmax, aten.cumsum, aten.logcumsumexp, aten.cumprod)
def softmax(site: Site) -> list[Labels]:
    x = site.arg(0)
    axis = site.arg(1) % len(site.shape(x))
    if site.call.op.overloadpacket is aten.cumsum:
        site.reduce(x, axis)  # what is masked adds nothing to the sums that are kept
    else:
        site.renormalize(x, axis)
    return [list(site.labels(x))]


@rule(aten.cummax, aten.cummin)
def running(site: Site) -> list[Labels]:
    """The largest so far of what is kept, where nobody asks for its place."""
    x, axis = site.arg(0), int(site.arg(len(site.call.op._schema.arguments) - 1))
    labels = list(site.labels(x))
    axis %= len(labels)
    if _is_placed(site) or "float" not in site.graph.values[x.value].dtype:
        site.freeze(labels[axis], "accumulates along this dim")
    else:
        site.renormalize(x, axis)
    return [list(labels) for _ in site.call.outputs]


def _is_placed(site: Site) -> bool:
    """Whether somebody asks for the places that come as a second result."""
    return len(site.call.outputs) > 1 and site.call.outputs[1] in site.facts.used


@rule(aten.max, aten.min, aten.median, aten.nanmedian)
def largest(site: Site) -> list[Labels]:
    """Of what is kept, where nobody asks for its place."""
    if _is_placed(site) or "float" not in site.graph.values[site.call.inputs[0]].dtype:
        return _extremes(site)
    return _over(site, renormalized=True)


@rule(
    aten.argmax,
    aten.argmin,
    aten.kthvalue,
    aten.mode,
)
def extremes(site: Site) -> list[Labels]:
    """Reductions whose dims stay; the others go on."""
    return _extremes(site)


def _extremes(site: Site) -> list[Labels]:
    x = site.arg(0)
    labels = site.labels(x)
    axes, keep = _axes(site, len(labels))
    for axis in axes:
        site.freeze(labels[axis], "reduces over positions")
    out = [FIXED if a in axes else d for a, d in enumerate(labels) if keep or a not in axes]
    return [list(out) for _ in site.call.outputs]


@rule(aten.native_batch_norm, aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training,
      aten.cudnn_batch_norm, aten._batch_norm_with_update, aten._batch_norm_no_update,
      aten._native_batch_norm_legit_functional)  # fmt: skip
def batch_norm(site: Site) -> list[Labels]:
    x = site.arg(0)
    labels = list(site.labels(x))
    for ref in site.tensors()[1:]:
        labels[1] = site.unify(labels[1], site.labels(ref)[0])
    names = [a.name for a in site.call.op._schema.arguments]
    if "training" in names and site.arg(names.index("training")):
        for axis in (a for a in range(len(labels)) if a != 1):
            site.renormalize(x, axis)
    return [labels, *(_per_channel(site, i, labels[1]) for i in range(1, len(site.call.outputs)))]


def _per_channel(site: Site, position: int, channels: Dim) -> Labels:
    shape = site.output_shape(position)
    return [channels] if shape and len(shape) == 1 and shape[0] > 0 else fixed(shape)


@rule(aten.native_layer_norm, aten._fused_rms_norm)
def layer_norm(site: Site) -> list[Labels]:
    """Statistics span the last dims: what is kept is renormalised."""
    x, spanned = site.arg(0), site.arg(1)
    labels, rank = list(site.labels(x)), len(site.shape(x))
    first, given = rank - len(spanned), site.size_exprs(spanned)
    for axis in range(first, rank):
        for ref in site.tensors()[1:]:
            labels[axis] = site.unify(labels[axis], site.labels(ref)[axis - first])
        site.renormalize(x, axis)
        site.require(given[axis - first], labels[axis], "normalises over this size")
    rest = [*labels[:first], *([FIXED] * len(spanned))]
    return [labels, *([*rest] for _ in site.call.outputs[1:])]


@rule(aten.native_group_norm)
def group_norm(site: Site) -> list[Labels]:
    """Channels are (group, place); places are renormalised, whole groups go exactly."""
    x, groups = site.arg(0), site.arg(6)
    labels, channels = list(site.labels(x)), site.shape(x)[1]
    for position in (1, 2):
        if isinstance(site.arg(position), Ref):
            labels[1] = site.unify(labels[1], site.labels(site.arg(position))[0])
    group: Dim = FIXED
    if labels[1]:
        group, place = site.atoms.reshape(labels[1], (groups, channels // groups))
        labels[1] = site.atoms.merge((group, place), (groups, channels // groups))
        if groups < channels:
            site.facts.kinds.append(("group", group))
            site.facts.renormalized.extend(place)
        site.renormalize(x, 1)
        site.require(site.size_expr(groups), group, "normalises this number of groups")
    return [labels, [labels[0], group], [labels[0], group]]


@rule(aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d,
      aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d,
      aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d,
      aten._upsample_bicubic2d_aa, aten._upsample_bilinear2d_aa, aten.upsample_linear1d, aten.upsample_trilinear3d,
      aten.upsample_nearest3d)  # fmt: skip
def spatial(site: Site) -> list[Labels]:
    """Leading dims go through, the spatial dims behind them stay, but for windows that lie side by side: their indices
    go together.
    """
    x: Any = site.arg(0)
    labels, spanned = list(site.labels(x)), _spatial_rank(site)
    for place in range(spanned):
        axis = len(labels) - spanned + place
        if labels[axis]:
            labels[axis] = _pooled(site, labels[axis], site.shape(x)[axis], place)
    return [list(labels) for _ in site.call.outputs]


def _pooled(site: Site, dim: Dim, size: int, place: int) -> Dim:
    window = _window(site, place)
    if window == 1:
        return dim
    if not window or size % window:
        site.freeze(dim, "pools or resizes this dim")
        return FIXED
    runs, places = site.atoms.reshape(dim, (size // window, window))
    site.freeze(places, "pools these indices together")
    return runs


_POOLS = frozenset({
    aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d, aten.max_pool2d_with_indices, aten.max_pool3d_with_indices,
})  # fmt: skip


def _window(site: Site, place: int) -> int:
    """The width of a pool's windows along a dim, if they lie side by side from end to end; else 0."""
    packet = site.call.op.overloadpacket
    if packet not in _POOLS or _is_placed(site):
        return 0
    kernel, dilation = site.arg(1), site.arg(4, 1) if "max" in packet.__name__ else 1
    given = (kernel, site.arg(2) or kernel, site.arg(3, 0), dilation)
    width, step, padding, dilated = (_of_axis(v, place) for v in given)
    return width if (step, padding, dilated) == (width, 0, 1) else 0


def _of_axis(given: Any, place: int) -> int:
    """An entry of a list of sizes, or the one size for all axes."""
    return int(given) if not isinstance(given, (tuple, list)) else int(given[place if len(given) > 1 else 0])


def _spatial_rank(site: Site) -> int:
    name = site.call.op.overloadpacket.__name__
    return next(n for n in (1, 2, 3) if f"{n}d" in name)
