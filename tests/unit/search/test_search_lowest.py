"""Which units go: the lowest scores, of equal ones those that come first."""

import numpy as np
import pytest

from penjing.search._select import lowest


@pytest.mark.parametrize("kinds", [1, 3, 1000])
def test_the_lowest_are_those_of_a_stable_sort(kinds: int):
    scores = np.random.default_rng(0).integers(0, kinds, 200).astype(np.float64)
    scores[7] = np.inf
    for count in (0, 1, 99, 199, 200):
        assert lowest(scores, count) == tuple(sorted(np.argsort(scores, kind="stable")[:count].tolist()))
