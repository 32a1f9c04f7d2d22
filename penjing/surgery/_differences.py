"""How far two runs are apart: their outputs, and what their products gave."""

from collections.abc import Sequence

import torch

from penjing.surgery._precision import Precision
from penjing.surgery._revival import Told


def products_differ(ours: Told, theirs: Told, precision: Precision) -> float | None:
    """The largest difference between what products gave; None where they are not the same products."""
    pairs = list(zip(ours.products, theirs.products, strict=False))
    if len(ours.products) != len(theirs.products) or any(a is not b for (a, _), (b, _) in pairs):
        return None
    worst = 0.0
    for (_, (a, size)), (_, (b, other)) in pairs:
        reference, difference = max(size, other), abs(a - b)
        if not difference <= max(precision.faint * reference, precision.faint**2):
            return max(difference, precision.tolerance * 2)
        worst = max(worst, difference / max(1.0, reference))
    return worst


def _less_masks(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Without the infinities that both hold at the same places, as attention masks do."""
    alike = torch.isinf(b) & (a == b)
    some = alike.any() and not alike.all()
    return (a.masked_fill(alike, 0), b.masked_fill(alike, 0)) if some else (a, b)


def largest_error(
    ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], precision: Precision
) -> float:
    """max|difference| / max(1, max|reference|) over all outputs; infinite for NaN, for other shapes and for nothing at
    all to compare.
    """
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return float("inf")
    if not any(a.numel() for a in ours):
        return float("inf")
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if not a.numel():
            continue
        a, b = _less_masks(*(torch.view_as_real(t.resolve_conj()) if t.is_complex() else t for t in (a, b)))
        reference = b.double().abs().max().item()
        difference = (a.double() - b.double()).abs().max().item()
        if not difference <= max(precision.faint * reference, precision.faint**2):
            return float("inf") if difference != difference else max(difference, precision.tolerance * 2)
        worst = max(worst, difference / max(1.0, reference))
    return worst
