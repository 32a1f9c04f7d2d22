"""How much memory a reconstruction takes, told before it begins."""

from collections.abc import Iterable, Sequence

from penjing.structure import Meeting, Survey

PER_INPUT = 4
WALKER = 1 << 19  # a thread, with the scratch memory that kernels keep for it
MODULE = 2500
SLACK = 2  # of the system's allocator, between what lives and what the process holds (benchmarks/reconstruction.py)


def footprint(surveys: Sequence[Survey], batches: int, positions: int, modules: int) -> int:
    """Bytes that a process grows by: what lives in both networks for all batches, and once more for one batch in work,
    the walkers with their own copies of all `modules` (not of their tensors), and the largest refit.
    """
    each = sum(s.peak for s in surveys)
    small = surveys[0]
    refits = [_refit(m, batches, positions) for m in small.once.values()]
    together = sum(_sums(m) for m in small.repeated.values())
    work = max(refits, default=0) + together
    walkers = batches * (2 * WALKER + MODULE * modules)
    return SLACK * (each * (batches + 1) + walkers + work)


def fitting(surveys: Sequence[Survey], most: int, positions: int, modules: int, memory: int) -> int:
    """How many of `most` batches, at least one, fit into `memory` bytes."""
    counts: Iterable[int] = range(most, 1, -1)
    return next((n for n in counts if footprint(surveys, n, positions, modules) <= memory), 1)


def positions_of_batch(inputs: int, batches: int, positions: int) -> int:
    """How many positions of a batch a weight of so many inputs meets at most."""
    return max(positions, 2 * PER_INPUT * inputs) // batches


def _sums(meeting: Meeting) -> int:
    """Two sums of moments, and two matrices more to solve with, in float64."""
    groups, outputs, inputs = meeting.product.matrices.shape
    return 8 * groups * inputs * (4 * inputs + 10 * outputs)


def _refit(meeting: Meeting, batches: int, positions: int) -> int:
    groups, outputs, inputs = meeting.product.matrices.shape
    drawn = min(meeting.positions, positions_of_batch(inputs, batches, positions))
    size = max(4, meeting.product.weight.element_size())
    return _sums(meeting) + size * groups * drawn * (3 * inputs + 4 * outputs)
