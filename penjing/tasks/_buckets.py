"""Batches of examples that are about equally long, so that little padding is computed."""

from collections.abc import Iterator, Sequence

import numpy as np

from penjing.tasks._augment import uniform

RUN = 50  # batches that are sorted together
_ORDER, _BATCHES = 0x5DEECE66D, 0x1B873593


def bucketed_batches(
    indices: Sequence[int], lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """`indices` in batches of similar `lengths` (by example), in random order: a pure function of (seed, epoch).

    They are shuffled, cut into runs of 50 batches, each run is sorted by length and cut into batches, and the batches
    are shuffled. A last batch of one joins the one before it.
    """
    order = uniform(seed ^ _ORDER, epoch, indices, 1)[:, 0].argsort(kind="stable")
    shuffled = np.asarray(indices, dtype=np.int64)[order]
    batches: list[list[int]] = []
    for start in range(0, len(shuffled), RUN * batch_size):
        run = shuffled[start : start + RUN * batch_size]
        run = run[lengths[run].argsort(kind="stable")]
        batches += [run[i : i + batch_size].tolist() for i in range(0, len(run), batch_size)]
    _join_lonely(batches, batch_size)
    key = uniform(seed ^ _BATCHES, epoch, range(len(batches)), 1)[:, 0].argsort(kind="stable")
    return [batches[i] for i in key.tolist()]


def by_length(indices: Sequence[int], lengths: np.ndarray) -> np.ndarray:
    """Places in `indices`, the shortest example first; equal lengths keep their order."""
    return lengths[np.asarray(indices, dtype=np.int64)].argsort(kind="stable")


def in_batches(indices: Sequence[int], batch_size: int) -> Iterator[Sequence[int]]:
    """`indices` in order, in batches; a last batch of one joins the one before it."""
    batches = [list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size)]
    _join_lonely(batches, batch_size)
    yield from batches


def typical(lengths: np.ndarray, step: int = 8) -> int:
    """The length that three quarters do not exceed, rounded up to a multiple of `step`."""
    place = max(0, -(-3 * len(lengths) // 4) - 1)
    return -(-int(np.sort(lengths)[place]) // step) * step


def _join_lonely(batches: list[list[int]], batch_size: int) -> None:
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        lonely = batches.pop()
        batches[-1] += lonely
