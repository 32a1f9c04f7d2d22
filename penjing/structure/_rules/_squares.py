"""Ops that tell rows from columns by number: index i of one dim meets index i of the other."""

import torch

from penjing.structure._labels._atoms import FIXED, Dim
from penjing.structure._rules._elementwise import factory
from penjing.structure._rules._registry import Labels, Site, rule

aten = torch.ops.aten


@rule(aten.eye)
def eye(site: Site) -> list[Labels]:
    """A smaller identity is the kept rows and columns of the larger one only where both lose the same indices."""
    ((rows, columns),) = factory(site)
    return [list(_tied(site, rows, columns, site.output_shape()))]


@rule(aten.tril, aten.triu)
def triangle(site: Site) -> list[Labels]:
    """What is left of a triangle is a triangle where rows and columns lose the same indices."""
    x = site.arg(0)
    labels = list(site.labels(x))
    labels[-2:] = _tied(site, labels[-2], labels[-1], site.shape(x)[-2:])
    if site.arg(1, 0) not in (-1, 0, 1) and labels[-1]:
        site.freeze(labels[-1], "counts indices between rows and columns")
    return [labels]


@rule(aten.diagonal)
def diagonal(site: Site) -> list[Labels]:
    labels, shape = site.labels(site.arg(0)), site.shape(site.arg(0))
    one, other = (a % len(labels) for a in (site.arg(2, 0), site.arg(3, 1)))
    both = _tied(site, labels[one], labels[other], (shape[one], shape[other]))[0]
    if site.arg(1, 0) and both:
        site.freeze(both, "takes a diagonal beside the main one of this dim")
    last = FIXED if site.arg(1, 0) else both
    return [[*(d for a, d in enumerate(labels) if a not in (one, other)), last]]


@rule(aten.diag_embed)
def diagonal_matrix(site: Site) -> list[Labels]:
    """(.., n) -> (.., n, n), with the new dims where they are asked for."""
    labels = list(site.labels(site.arg(0)))
    own, rank = labels.pop(), len(site.output_shape())
    if site.arg(1, 0):
        site.freeze(own, "lays out a diagonal beside the main one")
        own = FIXED
    for axis in sorted(a % rank for a in (site.arg(2, -2), site.arg(3, -1))):
        labels.insert(axis, own)
    return [labels]


@rule(aten.trace)
def trace(site: Site) -> list[Labels]:
    x = site.arg(0)
    rows, columns = site.labels(x)
    _tied(site, rows, columns, site.shape(x))
    site.reduce(x, 0)
    return [[]]


def _tied(site: Site, rows: Dim, columns: Dim, sizes: tuple[int, ...]) -> tuple[Dim, Dim]:
    if not rows and not columns:
        return FIXED, FIXED
    if sizes[0] != sizes[1]:
        for dim in (rows, columns):
            site.freeze(dim, "tells rows from columns by number, and there are not as many of both")
        return rows, columns
    both = site.unify(rows, columns)
    return both, both
