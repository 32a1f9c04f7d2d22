"""Laws of operators' times: found again from times that follow one, and sound where they do not."""

import numpy as np
import pytest

from penjing.search._node_time import Law, Seen, fit

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
