"""Fourier transforms and complex numbers."""

import torch

from penjing.structure._labels._atoms import FIXED
from penjing.structure._rules._elementwise import pointwise
from penjing.structure._rules._registry import Labels, Site, fixed, rule

aten = torch.ops.aten

rule(aten.complex, aten.polar, aten.angle, aten._conj, aten._conj_physical, aten.conj_physical)(pointwise)


@rule(aten._fft_r2c, aten._fft_c2c, aten._fft_c2r)
def transform(site: Site) -> list[Labels]:
    """Every output mixes all indices of a transformed dim, by their number: these stay, the others go through."""
    x = site.arg(0)
    labels = list(site.labels(x))
    for axis in site.arg(1):
        site.freeze(labels[axis], "transforms this dim")
        labels[axis] = FIXED
    return [labels]


@rule(aten.view_as_real, aten.view_as_real_copy)
def parts(site: Site) -> list[Labels]:
    return [[*site.labels(site.arg(0)), FIXED]]


@rule(aten.view_as_complex, aten.view_as_complex_copy)
def joined_parts(site: Site) -> list[Labels]:
    labels = site.labels(site.arg(0))
    site.freeze(labels[-1], "holds real and imaginary parts")
    return [list(labels[:-1])]


@rule(aten.affine_grid_generator)
def affine_grid(site: Site) -> list[Labels]:
    """One map per picture, to places that know nothing of channels."""
    batch, *rest = site.labels(site.arg(0))
    for dim in rest:
        site.freeze(dim, "holds an affine map")
    return [[batch, *fixed(site.output_shape()[1:])]]
