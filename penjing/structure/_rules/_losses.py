"""Losses inside a forward, as language models compute them from labels."""

import torch

from penjing.structure._rules._elementwise import pointwise
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten
NONE, MEAN = 0, 1


def _reduction(site: Site) -> int:
    names = [a.name for a in site.call.op._schema.arguments]
    return int(site.arg(names.index("reduction"), MEAN))


@rule(aten.mse_loss, aten.smooth_l1_loss, aten.huber_loss)
def distance(site: Site) -> list[Labels]:
    """Element by element, then summed or averaged over what is kept; nothing is lost where both sides are zero."""
    labels = pointwise(site) if _reduction(site) == NONE else [[]]
    if _reduction(site) == NONE:
        return labels
    first, *others = site.tensors()
    for axis, own in enumerate(site.labels(first)):
        for other in others:
            site.unify(own, site.labels(other)[axis])
        for ref in site.tensors():
            (site.renormalize if _reduction(site) == MEAN else site.reduce)(ref, axis)
    return labels


@rule(aten.binary_cross_entropy, aten.binary_cross_entropy_with_logits)
def cross_entropy(site: Site) -> list[Labels]:
    if _reduction(site) == NONE:
        return pointwise(site)
    for ref in site.tensors():
        for dim in site.labels(ref):
            site.freeze(dim, "compares these with targets")
    return [[]]


@rule(aten.nll_loss_forward, aten.nll_loss2d_forward, aten._ctc_loss)
def likelihood(site: Site) -> list[Labels]:
    """Classes go by their numbers."""
    for ref in site.tensors():
        for dim in site.labels(ref):
            site.freeze(dim, "looks classes up by their numbers")
    return [fixed(site.output_shape(i)) for i in range(len(site.call.outputs))]
