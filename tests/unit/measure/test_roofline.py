"""The roofline's bound, on counts and peaks that are known."""

import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.measure import Peaks, measure_peaks, roofline
from penjing.measure._roofline import bound_of

PEAKS = Peaks(macs_per_ms=1e3, bytes_per_ms=1e4, overhead_ms=0.5)


@pytest.mark.parametrize(
    ("macs", "size", "milliseconds", "by"),
    [(5000, 20000, 5.5, "compute"), (1000, 20000, 2.5, "memory"), (100, 1000, 0.6, "overhead")],
)
def test_an_operator_is_bound_by_the_larger_of_its_terms(
    macs: int, size: int, milliseconds: float, by: str
) -> None:
    found = bound_of("aten.mm", macs, size, PEAKS)
    assert found.bound_ms == pytest.approx(milliseconds)
    assert found.by == by


def test_a_forward_is_the_sum_of_its_operators() -> None:
    """Linear(4, 6) at batch 3: 72 MACs; inputs 12, weight 24, bias 6, outputs 18 float32; then ReLU on 18 twice."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU()).eval()
    found = roofline(model, torch.randn(3, 4), threads=1, peaks=PEAKS, stopwatch=lambda call: 4.0)
    assert [(o.op, o.macs, o.bytes) for o in found.operators] == [
        ("aten.addmm", 72, 4 * (12 + 24 + 6 + 18)),
        ("aten.relu", 0, 4 * 36),
    ]
    expected = 0.072 + 0.5 + 144 / 1e4 + 0.5
    assert found.bound_ms == pytest.approx(expected)
    assert found.measured_ms == 4.0
    assert found.distance == pytest.approx(4.0 / expected)
    assert found.share("overhead") == pytest.approx(1.0)


def test_the_batch_is_what_was_asked_and_the_network_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).train()
    found = roofline(model, torch.randn(1, 1, 5, 5), batch_size=4, threads=1, peaks=PEAKS)
    assert found.batch_size == 4
    assert found.operators[0].macs == 4 * 2 * 9 * 9
    assert model.training
    assert int(model[1].num_batches_tracked) == 0
    assert found.to_dict()["shares"].keys() == {"compute", "memory", "overhead"}


def test_peaks_are_the_best_readings() -> None:
    """Every reading is 2 ms: a product of 768 cubed, 64 MiB moved, a hundred additions."""
    found = measure_peaks(torch.device("cpu"), 1, lambda call: 2.0)
    assert found.macs_per_ms == 768**3 / 2
    assert found.bytes_per_ms == 2**26 / 2
    assert found.overhead_ms == 0.02


def test_peaks_are_positive() -> None:
    with pytest.raises(UsageError, match="positive"):
        Peaks(macs_per_ms=0, bytes_per_ms=1, overhead_ms=1)
