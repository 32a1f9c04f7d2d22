import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.measure import count_params, measure, state_bytes
from penjing.runtimes import untouched


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def test_tied_parameters_count_once() -> None:
    assert count_params(Tied()) == 40
    assert state_bytes(Tied()) == 160


def test_parameters_that_share_elements_count_once() -> None:
    model = nn.Module()
    model.weight = nn.Parameter(torch.randn(3, 5))
    model.transposed = nn.Parameter(model.weight.detach().T)
    assert count_params(model) == 15


def test_different_parts_of_one_storage_both_count() -> None:
    flat, model = torch.randn(12), nn.Module()
    model.first, model.second = nn.Parameter(flat[:6]), nn.Parameter(flat[6:])
    assert count_params(model) == 12
    assert state_bytes(model) == 48


def test_state_holds_buffers_of_every_dtype() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2).half())
    model.register_buffer("table", torch.zeros(5, dtype=torch.int8), persistent=False)
    assert count_params(model) == 6 + 8
    assert state_bytes(model) == (6 + 6) * 4 + 8 + 8 * 2 + 5


def test_frozen_and_meta_parameters_count() -> None:
    assert count_params(nn.Linear(3, 2, device="meta").requires_grad_(False)) == 8


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(UsageError, match="lazy"):
        count_params(nn.LazyLinear(4))


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.seen: dict[str, int] = {}
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen[str(x.shape)] = self.calls
        self.last = x
        return self.fc(x)


def test_caches_counters_and_modes_come_back() -> None:
    model = Caching()
    model.fc.eval()
    seen = model.seen
    seen["before"] = 0
    with untouched(model):
        assert not model.training
        model(torch.randn(1, 3))
        assert len(seen) == 2
    assert model.training
    assert not model.fc.training
    assert model.calls == 0
    assert model.seen is seen
    assert seen == {"before": 0}
    assert not hasattr(model, "last")


def test_restored_after_a_failure() -> None:
    model = Caching()
    with pytest.raises(RuntimeError), untouched(model):
        model(torch.randn(1, 4))
    assert model.training
    assert model.calls == 0


def test_measuring_leaves_a_trainable_network() -> None:
    model = Caching()
    measure(model, torch.randn(2, 3), repeats=1, warmup=0)
    assert model.calls == 0
    model(torch.randn(2, 3)).sum().backward()
    assert model.fc.weight.grad is not None


def test_a_network_on_two_devices_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3, device="meta"))
    with pytest.raises(UsageError, match="spread over cpu, meta"):
        measure(model, torch.randn(1, 3))
