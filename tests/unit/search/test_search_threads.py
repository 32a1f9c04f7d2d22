"""Several threads of a process may prune, one network or several: none sees what another one swaps meanwhile. Nor does
anybody see what an interrupt left behind.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn, overrides
from torch.utils import _python_dispatch as dispatch

import penjing as pj
from penjing.surgery import _exact as surgery

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


class Disturbed(nn.Module):
    """Is interrupted while torch has taken a mode off for a moment, or put one on."""

    def __init__(self, disturb: Callable[[], object]) -> None:
        super().__init__()
        self.a, self.b, self.disturb, self.on = nn.Linear(6, 16), nn.Linear(16, 3), disturb, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.on:
            self.disturb()
            raise KeyboardInterrupt
        return self.b(self.a(x).relu())


@pytest.mark.parametrize("during_proof", [False, True])
@pytest.mark.parametrize(
    "disturb", [overrides._pop_mode, lambda: overrides._push_mode(overrides.BaseTorchFunctionMode())]
)
def test_an_interrupt_stays_one_and_leaves_no_mode_behind(
    disturb: Callable[[], object], during_proof: bool, monkeypatch: pytest.MonkeyPatch
):
    torch.manual_seed(0)
    model = Disturbed(disturb).eval()
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)

    if during_proof:
        copied = surgery.precise_copy

        def switched(*args: object) -> nn.Module:
            small = copied(*args)
            small.on = True
            return small

        monkeypatch.setattr(surgery, "precise_copy", switched)
    else:
        model.on = True
    with pytest.raises(KeyboardInterrupt):
        pj.prune(model, EXAMPLE, ratio=0.5)
    assert overrides._get_current_function_mode_stack() == []
    assert dispatch._get_current_dispatch_mode_stack() == []
    model.on = False
    monkeypatch.undo()
    assert pj.verify(model, slim, plan, EXAMPLE).passed
