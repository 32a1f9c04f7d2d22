"""How far answers are apart: relative to the largest, small ones included, over what is finite."""

import math

import pytest
import torch

from penjing.runtimes._agree import Disagreement, agree, difference

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, 2.0], [1.0, 2.5], 0.2),  # 0.5 of 2.5
        ([1e-8], [0.0], 1e-6),  # of 0.01, not of 0
        ([1.01e-4], [1e-4], 1e-4),  # of 0.01: rounding inside of the network
        ([-1e-4], [1e-4], 2.0),  # no rounding
        ([0.52], [0.5], 0.04),
        ([INF, 1.0], [INF, 1.0], 0.0),
        ([INF, 1.0], [NAN, 1.0], 0.0),
        ([INF, 1.0], [3.0, 1.0], INF),
        ([NAN], [1.0], INF),
        ([1.0], [1.0, 1.0], INF),
        ([NAN], [NAN], 0.0),
    ],
)
def test_difference(found: list[float], expected: list[float], apart: float) -> None:
    assert difference([torch.tensor(found)], [torch.tensor(expected)]) == pytest.approx(apart, abs=1e-7)


def test_another_number_of_tensors_is_another_answer() -> None:
    one = torch.ones(2)
    assert difference([one], [one, one]) == INF


def test_where_nothing_is_finite_nothing_agrees() -> None:
    with pytest.raises(Disagreement, match="none of PyTorch's answers is finite"):
        agree([torch.tensor([NAN])], [torch.tensor([NAN])])
    assert agree([torch.empty(0, 3)], [torch.empty(0, 3)]) == 0.0


def test_agree_bears_what_kernels_do_and_no_more() -> None:
    whole = torch.tensor([10.0, -3.0])
    assert agree([whole + 1e-3], [whole]) == pytest.approx(1e-4, rel=1e-2)
    with pytest.raises(Disagreement, match=r"by 0\.01 of their size on inputs of x"):
        agree([whole + 0.1], [whole], " on inputs of x")
    half = whole.half()
    assert agree([half + 0.1], [half]) == pytest.approx(0.01, rel=0.1)
