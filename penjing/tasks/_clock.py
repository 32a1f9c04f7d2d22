"""How many frames a network gives for a clip of some length: learnt by listening to a few lengths."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Sounds
from penjing.tasks._classification import all_logits

LONGEST_HOP = (
    1 << 14
)  # input positions; networks that step further are taken to give a fixed number of frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A clip of n input positions (samples, or frames of features) gives (n - first) // hop + 1 frames of logits.

    So it is for every stack of convolutions and poolings without padding that depends on the length. `axis` is where
    the inputs hold time.
    """

    first: int
    hop: int
    axis: int = 1

    def frames(self, positions: Tensor) -> Tensor:
        """Frames of clips of so many positions, int64."""
        return torch.div(positions - self.first, self.hop, rounding_mode="floor") + 1


def clock_of(model: nn.Module, reads: Sounds, length: int) -> Clock | None:
    """The clock of a network that reads `reads`, heard around `length` positions; None where the frames do not follow
    the length in even steps (a fixed number of them, say).

    It costs a few dozen evaluations of one clip; the network comes out in the mode that it had.
    """
    if reads.frames is not None:
        return None
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        found = _learnt(lambda positions: _frames(model, reads, positions), length)
    finally:
        for module, mode in modes:
            module.training = mode
    axis = -1 if reads.layout == "picture" else 1
    return found and Clock(first=found[0], hop=found[1], axis=axis)


def _learnt(frames: Callable[[int], int], length: int) -> tuple[int, int] | None:
    """(first, hop), checked at two more lengths."""
    before = frames(length)
    one = _next_step(frames, length, before)
    two = one and _next_step(frames, one, before + 1)
    if one is None or two is None:
        return None
    hop = two - one
    first = one - hop * before
    for other in (two + 7 * hop - 1, two + 7 * hop):
        if frames(other) != (other - first) // hop + 1:
            return None
    return first, hop


def _next_step(frames: Callable[[int], int], low: int, have: int) -> int | None:
    """The least length above `low` that gives more than `have` frames; None where that is not one frame more."""
    step = 1
    while frames(low + step) <= have:
        if step >= LONGEST_HOP:
            return None
        step *= 2
    short, enough = low + step // 2, low + step
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (middle, enough) if frames(middle) <= have else (short, middle)
    return enough if frames(enough) == have + 1 else None


@torch.no_grad()
def _frames(model: nn.Module, reads: Sounds, positions: int) -> int:
    shape = {"samples": (1, positions), "frames": (1, positions, reads.bins)}
    values = torch.randn(
        *shape.get(reads.layout, (1, reads.channels, reads.bins, positions)),
        generator=torch.Generator().manual_seed(0),
    ).to(next(model.parameters()).device)
    named: dict[str, Any] = {reads.keyword: values}
    if reads.mask:
        named[reads.mask] = torch.ones(1, positions, dtype=torch.int64, device=values.device)
    outputs = model(**named) if reads.keyword else model(values)
    return all_logits(outputs)[0].shape[1]
