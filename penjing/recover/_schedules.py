"""Learning-rate and guide schedules: pure functions of (step, total), so that a resumed run decides alike."""

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]


def constant(step: int, total: int) -> float:
    """1 at every step."""
    return 1.0


def warmup_cosine(step: int, total: int, *, warmup: float = 0.05, floor: float = 0.0) -> float:
    """Factor of the peak learning rate: a linear rise over `warmup` of the steps, then a cosine to `floor`.

    The learning-rate restart of Le & Hua ("Network Pruning That Matters", ICLR 2021): a pruned network is
    retrained from the original peak, not from the last small rate. The first step is above 0, the last is the
    floor's neighbour, so that no step is wasted.
    """
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    share = min(1.0, (step - rise) / max(1, total - rise))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def warmup_linear(step: int, total: int, *, warmup: float = 0.05, floor: float = 0.0) -> float:
    """Like `warmup_cosine` with a straight line down."""
    rise = round(warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return floor + (1 - floor) * (1 - min(1.0, (step - rise) / max(1, total - rise)))


def anneal(step: int, total: int, *, start: float = 1.0, until: float = 1.0) -> float:
    """`start` at step 0, falling in a straight line to exactly 0 at `until` of the steps and after.

    With the default the last step is the first one at 0: a guided student ends standing alone.
    """
    last = max(1.0, until * total - 1)
    return start * max(0.0, 1 - step / last) if total > 1 else 0.0
