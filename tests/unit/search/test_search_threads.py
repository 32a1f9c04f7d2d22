"""Several threads of a process may prune, one network or several: none sees what another one swaps meanwhile."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import penjing as pj

EXAMPLE = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3)).eval()


@pytest.mark.parametrize("shared", [True, False])
def test_threads_prune_as_one_does(shared: bool):
    one = network()
    expected, _ = pj.prune(one, EXAMPLE, ratio=0.5)

    def work(model: nn.Module) -> dict[str, torch.Tensor]:
        slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
        assert pj.verify(model, slim, plan, EXAMPLE).passed
        return slim.state_dict()

    models: list[nn.Module] = [one if shared else network() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(work, models))
    for state in found:
        torch.testing.assert_close(state, expected.state_dict(), rtol=0, atol=0)
    assert torch.get_default_dtype() is torch.float32
    assert not any(p.is_meta for p in one.parameters())
