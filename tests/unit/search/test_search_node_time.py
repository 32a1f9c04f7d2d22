"""Laws of operators' times: found again from times that follow one, and sound where they do not."""

import numpy as np
import pytest

from penjing.search._node_time import Law, Seen, _descended, fit, nonnegative

VARIES = ((True, True), (False, True))


def seen(law: Law, widths: list[tuple[int, int]]) -> list[Seen]:
    found = []
    for a, b in widths:
        shapes = ((a, b), (3, b))
        found.append(Seen(shapes, law.time(shapes, VARIES)))
    return found


WIDTHS = [(8, 16), (24, 40), (40, 8), (16, 56), (64, 24), (48, 64), (56, 32), (32, 48)]


@pytest.mark.parametrize("padding", [1, 16, 32])
def test_a_law_is_found_again_with_the_widths_that_kernels_round_up_to(padding: int) -> None:
    law = Law(0.5, (2e-3, 1e-2), padding)
    found = fit(seen(law, WIDTHS), VARIES)
    assert found.padding == padding
    assert found.fixed == pytest.approx(0.5, rel=1e-6)
    assert found.rates == pytest.approx(law.rates, rel=1e-6)


def test_times_in_the_steps_of_one_multiple_take_the_least_padding_that_tells_them() -> None:
    law = Law(0.1, (1e-3, 0.0), 1)
    assert (
        fit(seen(law, WIDTHS), VARIES).padding == 1
    )  # widths are multiples of 8: padding to 8 would do as well


def test_no_term_is_negative_though_times_fall_with_width() -> None:
    falling = [Seen(((a, b), (3, b)), 10.0 / (a * b)) for a, b in WIDTHS]
    found = fit(falling, VARIES)
    assert found.fixed >= 0
    assert min(found.rates) >= 0


def test_a_law_takes_arrays_of_widths() -> None:
    law = Law(0.5, (2e-3, 1e-2), 16)
    a, b = np.array([8, 24, 40]), 24
    together = law.time(((a, b), (3, b)), VARIES)
    assert together.tolist() == pytest.approx([law.time(((int(n), b), (3, b)), VARIES) for n in a])


def test_an_operator_of_constant_size_costs_what_it_cost() -> None:
    found = fit([Seen(((4, 4),), ms) for ms in (1.0, 1.0, 1.0, 1.0)], ((False, False),))
    assert found.time(((4, 4),), ((False, False),)) == pytest.approx(1.0)


def test_one_after_the_other_comes_to_the_best_of_all_sets() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        columns = rng.random((24, 6))
        wanted = columns @ np.maximum(rng.standard_normal(6), 0) + 0.05 * rng.standard_normal(24)
        columns /= np.linalg.norm(columns, axis=0)
        exact, _ = nonnegative(columns, wanted)
        np.testing.assert_allclose(_descended(columns.T @ columns, columns.T @ wanted), exact, atol=1e-8)


def test_many_tensors_that_grow_alike_are_one() -> None:
    """As in an LSTM of three layers, whose twelve weights all follow one width: all sets of them would be 4,096."""
    seen = [
        Seen(tuple((n, n) for _ in range(12)) + tuple((n,) for _ in range(6)), 1 + 3e-6 * n * n)
        for n in range(16, 272, 16)
    ]
    varies = [[True, True]] * 12 + [[True]] * 6
    law = fit(seen, varies)
    assert sum(rate > 0 for rate in law.rates) <= 2
    for one in seen:
        assert law.time(one.shapes, varies) == pytest.approx(one.milliseconds, rel=1e-6)


def test_a_weight_that_no_longer_fits_into_a_cache_costs_more() -> None:
    def true(a: int, b: int) -> float:
        return 0.1 + 1e-6 * a * b + 2e-6 * max(0, a * b - 40_000)

    rng = np.random.default_rng(1)
    widths = [(int(a), int(b)) for a, b in rng.integers(2, 32, (24, 2)) * 16]
    law = fit([Seen(((a, b), (b,)), true(a, b)) for a, b in widths], [[True, True], [True]])
    assert law.spilling == 0
    assert law.spill > 0
    errors = [abs(law.time(((a, b), (b,)), [[True, True], [True]]) / true(a, b) - 1) for a, b in widths]
    plain = np.array([[1, a * b] for a, b in widths], dtype=float)
    times = np.array([true(a, b) for a, b in widths])
    straight, _ = nonnegative(plain / times[:, None], np.ones(len(times)))
    without = np.abs(plain @ straight / times - 1)
    assert np.median(errors) < 0.5 * np.median(without)
