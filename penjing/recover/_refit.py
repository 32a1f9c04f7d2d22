"""Least squares from sums that stream: the weights that give the wanted outputs from the inputs there are."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # relative to the mean variance of the inputs
USUAL = 1e-2  # where the search begins, and what is taken where nothing is held out
FLAT = 1e-12


class Sums:
    """First and second moments of inputs phi [g, positions, d] and of wanted outputs y [g, positions, o]."""

    def __init__(self) -> None:
        self.count = 0
        self.pilot: tuple[Tensor, Tensor] | None = None

    def add(self, phi: Tensor, y: Tensor) -> None:
        if not phi.shape[1]:
            return
        if self.pilot is None:
            self._begin(phi, y)
        assert self.pilot is not None
        phi, y = phi - self.pilot[0], y - self.pilot[1]
        self.count += phi.shape[1]
        self.phi += phi.sum(1, dtype=torch.float64)
        self.y += y.sum(1, dtype=torch.float64)
        self.within += phi.mT @ phi
        self.across += y.mT @ phi
        self.energy += y.square().sum(1, dtype=torch.float64)

    def _begin(self, phi: Tensor, y: Tensor) -> None:
        self.pilot = phi.mean(1, keepdim=True), y.mean(1, keepdim=True)
        (g, _, d), o = phi.shape, y.shape[2]
        made = {"dtype": torch.float64, "device": phi.device}
        self.phi, self.y = torch.zeros(g, d, **made), torch.zeros(g, o, **made)
        self.within, self.across = torch.zeros(g, d, d, **made), torch.zeros(g, o, d, **made)
        self.energy = torch.zeros(g, o, **made)

    def origin(self) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self.phi), torch.zeros_like(self.y)

    def finite(self) -> bool:
        return not self.count or bool(torch.isfinite(self.energy).all() & torch.isfinite(self.phi).all())

    def moments(self, origin: tuple[Tensor, Tensor] | None = None) -> "Moments":
        """Mean products around `origin`, around the means if none is given; in the memory of the sums, which end."""
        assert self.pilot is not None
        n = self.count
        phi, y = self.phi / n, self.y / n
        pilots = self.pilot[0][:, 0].double(), self.pilot[1][:, 0].double()
        means = phi + pilots[0], y + pilots[1]
        shift = (phi, y) if origin is None else (origin[0] - pilots[0], origin[1] - pilots[1])
        a, b = shift
        right = torch.stack((a, phi - a), 1)
        within, across = self.within.div_(n), self.across.div_(n)
        del self.within, self.across
        within.baddbmm_(torch.stack((phi, a), 2), right, alpha=-1)
        across.baddbmm_(torch.stack((y, b), 2), right, alpha=-1)
        return Moments(within, across, self.energy / n - 2 * y * b + b * b, means, n)


@dataclass(frozen=True, slots=True)
class Moments:
    within: Tensor
    across: Tensor
    energy: Tensor
    means: tuple[Tensor, Tensor]
    count: int

    def error(self, weight: Tensor) -> float:
        """Mean squared difference between y and `weight` phi, summed over outputs."""
        fitted = 2 * (weight * self.across).sum() - ((weight @ self.within) * weight).sum()
        return float(self.energy.sum() - fitted)


def pooled(a: Moments, b: Moments) -> Moments:
    """Both together, in the memory of `a`."""
    n = a.count + b.count
    p, q = a.count / n, b.count / n
    return Moments(
        a.within.mul_(p).add_(b.within, alpha=q),
        a.across.mul_(p).add_(b.across, alpha=q),
        p * a.energy + q * b.energy,
        (p * a.means[0] + q * b.means[0], p * a.means[1] + q * b.means[1]),
        n,
    )


@dataclass(frozen=True, slots=True)
class Refit:
    weight: Tensor
    offset: Tensor
    before: float
    after: float
    ridge: float
    count: int


def refit(
    weight: Tensor,
    learned: Sums,
    held: Sums,
    *,
    offset: bool,
    bias: Tensor | None = None,
    slack: float = 0.0,
) -> Refit:
    """Ridge regression of y on phi, drawn to `weight`; the ridge is the one that serves held-out positions best. Where
    that is less than the usual one, larger ones are taken while they miss no more than a share `slack` above it.

    Without `offset` the fit goes through the origin. `bias` [g, o] is what `weight` phi comes with now: None where any
    offset is taken up later.
    """
    weight = weight.double()
    origin = None if offset else learned.origin()
    here = learned.moments(origin)
    ridge, both = USUAL, here
    if held.count:
        around = here.means if origin is None else origin
        there = held.moments(around)
        draw = _Drawn(weight, here)
        start = RIDGES.index(USUAL)
        ridge = RIDGES[_lowest(lambda place: there.error(draw(RIDGES[place])), len(RIDGES), start, slack)]
        both = pooled(here, there)
        both = _centred(both, here.means) if offset else both
    found = _Drawn(weight, both)(ridge)
    means = both.means[0].unsqueeze(2)
    now = both.means[1] - (weight @ means)[:, :, 0]
    missed = float((now - bias).square().sum()) if offset and bias is not None else 0.0
    scale = float(both.energy.sum())
    if scale <= FLAT * float(both.means[1].square().sum()):  # outputs that hardly vary are told by their size
        scale = float(both.means[1].square().sum()) or 1.0
    return Refit(
        weight=found,
        offset=both.means[1] - (found @ means)[:, :, 0],
        before=max(0.0, both.error(weight) + missed) / scale,
        after=max(0.0, both.error(found)) / scale,
        ridge=ridge,
        count=both.count,
    )


def _centred(both: Moments, around: tuple[Tensor, Tensor]) -> Moments:
    a, b = both.means[0] - around[0], both.means[1] - around[1]
    both.within.baddbmm_(a.unsqueeze(2), a.unsqueeze(1), alpha=-1)
    both.across.baddbmm_(b.unsqueeze(2), a.unsqueeze(1), alpha=-1)
    return replace(both, energy=both.energy - b * b)


class _Drawn:
    """The ridge regressions of one set of moments, drawn to `weight`."""

    def __init__(self, weight: Tensor, of: Moments) -> None:
        self.weight, self.within = weight, of.within
        self.scale = of.within.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).clamp_min(1e-30)
        self.left = (of.across - weight @ of.within).mT

    def __call__(self, ridge: float) -> Tensor:
        raised = self.within.clone()
        raised.diagonal(dim1=1, dim2=2).add_(ridge * self.scale)
        factor, info = torch.linalg.cholesky_ex(raised)
        if info.any():
            return self.weight
        return self.weight + torch.cholesky_solve(self.left, factor).mT


def _lowest(value: Callable[[int], float], count: int, start: int, slack: float) -> int:
    """The place from which values rise on either side, downhill from `start`; back towards it while they are no more
    than a share `slack` higher.
    """
    known: dict[int, float] = {}
    place, lowest = -1, start
    while place != lowest:
        place = lowest
        around = range(max(0, place - 1), min(count, place + 2))
        known |= {at: value(at) for at in around if at not in known}
        lowest = min(around, key=lambda at: (known[at], at))
    most = known[lowest] * (1 + slack)
    while place < start and known[place + 1] <= most:
        place += 1
    return place


def missed(weight: Tensor, phi: Tensor, y: Tensor, *, offset: bool, bias: Tensor | None = None) -> float:
    """The share of y's variance that `weight` phi misses at these positions, as `refit` tells it before a refit;
    NaN where y does not vary.
    """
    left = y - phi @ weight.mT.to(phi.dtype)
    if not offset:
        return float(left.square().sum() / y.square().sum())
    mean = left.mean(1, keepdim=True)
    error = (left - mean).square().mean(1).sum()
    error = error if bias is None else error + (mean[:, 0] - bias).square().sum()
    return float(error / (y - y.mean(1, keepdim=True)).square().mean(1).sum())
