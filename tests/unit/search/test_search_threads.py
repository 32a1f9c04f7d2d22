"""Several threads of a process may prune, one network or several: none sees what another one swaps meanwhile. Nor does
anybody see what an interrupt left behind.
"""

import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn, overrides
from torch.utils import _python_dispatch as dispatch

import penjing as pj
from penjing.core._groups import PruneGroup
from penjing.structure import every_path
from penjing.structure._network import _alone as structure_alone
from penjing.structure._tracing import _stand_ins as stand_ins
from penjing.surgery import _exact as surgery
from penjing.surgery import _precision as precision

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


def interrupting(module: object, at: int) -> Callable[..., object]:
    """A trace function that interrupts where some line of a module is reached for the `at`th time."""
    file, count = vars(module)["__file__"], itertools.count()

    def follow(frame: object, event: str, _: object) -> object:
        if frame.f_code.co_filename != file:  # type: ignore[attr-defined]
            return None
        if event == "line" and next(count) == at:
            raise KeyboardInterrupt
        return follow

    return follow


def held(model: nn.Module) -> Sequence[object]:
    return [*map(id, model.parameters()), *map(id, model.buffers()), *(m.training for m in model.modules())]


def test_a_network_is_whole_again_wherever_its_swap_is_interrupted():
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.LSTM(4, 4)).train()
    model.table = torch.ones(4)
    before, table = held(model), model.table
    for at in itertools.count():
        outer = sys.gettrace()
        sys.settrace(interrupting(stand_ins, at))
        try:
            with stand_ins.on_meta(every_path(model), False):
                pass
            break
        except KeyboardInterrupt:
            assert held(model) == before
            assert model.table is table
        finally:
            sys.settrace(outer)
    assert at > 100
    assert held(model) == before


def test_a_network_is_whole_again_where_a_stand_in_cannot_be_made(monkeypatch: pytest.MonkeyPatch):
    model, made, real = network(), itertools.count(), stand_ins.stand_in

    def fails(tensor: torch.Tensor) -> torch.Tensor:
        if next(made) == 2:
            raise RuntimeError("no such layout")
        return real(tensor)

    before = held(model)
    monkeypatch.setattr(stand_ins, "stand_in", fails)
    with pytest.raises(RuntimeError):
        pj.trace(model, EXAMPLE)
    assert held(model) == before


@pytest.mark.parametrize("at", range(4))
def test_the_default_float_type_outlives_an_interrupt(at: int, monkeypatch: pytest.MonkeyPatch):
    calls, real = itertools.count(), torch.set_default_dtype

    def interrupted(dtype: torch.dtype) -> None:
        real(dtype)
        if next(calls) == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(precision.torch, "set_default_dtype", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        pj.prune(network(), EXAMPLE, ratio=0.5)
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_process_forked_while_another_thread_prunes_may_prune():
    inside, leave = threading.Event(), threading.Event()

    def criterion(group: PruneGroup, model: nn.Module) -> torch.Tensor:
        torch.set_default_dtype(torch.float64)
        inside.set()
        leave.wait(30)
        return torch.arange(len(group))

    pj.prune(network(), EXAMPLE, ratio=0.5)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lambda: pj.prune(network(), EXAMPLE, ratio=0.5, criterion=criterion))
        assert inside.wait(30)
        child = os.fork()
        if not child:
            free = structure_alone._LOCK.acquire(timeout=5)
            os._exit(0 if free and torch.get_default_dtype() is torch.float32 else 1)
        _, status = os.waitpid(child, 0)
        leave.set()
        job.result()
    assert status == 0
