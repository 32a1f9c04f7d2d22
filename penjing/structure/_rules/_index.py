"""Ops that read by position."""

from typing import Any

import torch

from penjing.core._graph import Ref
from penjing.structure._atoms import FIXED
from penjing.structure._rules._elementwise import freeze_everything
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten


@rule(
    aten.as_strided, aten.diagonal, aten.unfold, aten.im2col, aten.col2im, aten.gather, aten.scatter, aten.scatter_,
    aten.index_put, aten.index_put_, aten.index_select, aten.sort, aten.topk, aten.nonzero, aten.grid_sampler_2d,
    aten.multinomial, aten.cumprod, aten.slice_scatter, aten.select_scatter,
)  # fmt: skip
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
