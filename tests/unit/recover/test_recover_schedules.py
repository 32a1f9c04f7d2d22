import pytest

from penjing.recover import anneal, constant, warmup_cosine, warmup_linear


@pytest.mark.parametrize("shape", [warmup_cosine, warmup_linear])
def test_a_restart_rises_for_five_percent_then_falls_to_nearly_nothing(shape):
    rates = [shape(step, 200) for step in range(200)]
    assert rates.index(max(rates)) == 10
    assert max(rates) == 1.0
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[0] < 0.1
    assert 0 < rates[-1] < 0.01


def test_cosine_is_half_way_in_the_middle_and_respects_its_floor():
    assert warmup_cosine(50, 100, warmup=0.0) == pytest.approx(0.5)
    assert warmup_cosine(100, 100, warmup=0.0, floor=0.1) == pytest.approx(0.1)
    assert warmup_cosine(130, 100, warmup=0.0) == 0.0
    assert warmup_linear(25, 100, warmup=0.0) == 0.75


@pytest.mark.parametrize("shape", [warmup_cosine, warmup_linear, constant])
def test_a_single_step_has_a_rate(shape):
    assert 0 < shape(0, 1) <= 1


def test_anneal_ends_at_exactly_zero():
    alphas = [anneal(step, 11, start=2.0) for step in range(11)]
    assert alphas[0] == 2.0
    assert alphas[5] == 1.0
    assert alphas[-1] == 0.0
    assert anneal(0, 1) == 0.0
    assert anneal(6, 11, until=0.5) == 0.0
