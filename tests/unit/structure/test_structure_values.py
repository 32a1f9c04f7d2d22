"""Which values a forward may read while it is traced, and what a trace puts back."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

import penjing as pj

Step = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Net(nn.Module):
    def __init__(self, step: Step) -> None:
        super().__init__()
        self.a, self.b, self.step = nn.Linear(6, 8), nn.Linear(8, 3), step
        self.ready = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.step(self, self.a(x)))


def whole_mask(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(h.shape[:-1], device=h.device)
    return h if mask.all() else h * 2


def elsewhere(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    places = torch.arange(h.shape[1])
    return h + h.to(places.device).mean(-1, keepdim=True)


def same_as_ids(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    used = h.new_ones(h.shape[:2], dtype=torch.bool)
    return h if bool(used.all()) else h * 2


def written_and_read(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(2, 3, device=h.device)
    total += h.sum(-1)
    return h if total.sum() > 0 else -h


def view_written_and_read(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(2, 3, device=h.device)
    total[0].copy_(h[0].sum(-1))
    return h if total.sum() > 0 else -h


def branch_on_device(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    return h if h.device.type == "cpu" else h.unknown_method()


def drawn_mask(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    order = torch.multinomial(torch.ones(h.shape[1]), h.shape[1])
    mask = torch.ones(h.shape[:-1], device=h.device)[:, order]
    return h if mask.all() else h * 2


def mask_as_list(_: nn.Module, h: torch.Tensor) -> torch.Tensor:
    lengths = torch.ones(h.shape[0], h.shape[1], device=h.device).sum(-1).long().tolist()
    return torch.stack([row[:n].mean(0) for row, n in zip(h, lengths, strict=True)])


@pytest.mark.parametrize(
    "step", [whole_mask, elsewhere, same_as_ids, branch_on_device, mask_as_list, drawn_mask]
)
def test_values_that_no_data_decides_are_real(step: Step):
    torch.manual_seed(0)
    model, x = Net(step).eval(), torch.randn(2, 3, 6)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.a.out_features == 4
    assert pj.verify(model, slim, plan, x).passed


@pytest.mark.parametrize("step", [written_and_read, view_written_and_read])
def test_a_real_tensor_that_data_was_written_into_is_unknown(step: Step):
    with pytest.raises(pj.TraceError, match="reads the value of a computed tensor"):
        pj.trace(Net(step).eval(), torch.randn(2, 3, 6))


def test_hooks_that_a_forward_registers_go_when_the_trace_ends():
    def once(model: nn.Module, h: torch.Tensor) -> torch.Tensor:
        if not model.ready:
            model.b.register_forward_hook(lambda module, args, output: output * 2)
            model.ready = True
        return h

    model = Net(once).eval()
    pj.trace(model, torch.randn(2, 3, 6))
    assert not model.ready
    assert not model.b._forward_hooks


def test_modules_that_a_forward_swaps_come_back_when_the_trace_ends():
    def once(model: nn.Module, h: torch.Tensor) -> torch.Tensor:
        fresh = nn.Sequential(model.b)
        model.b, model.extra = fresh, nn.Identity()
        return h

    model = Net(once).eval()
    before = dict(model.named_modules())
    pj.trace(model, torch.randn(2, 3, 6))
    after = dict(model.named_modules())
    assert list(after) == list(before)
    assert all(after[path] is module for path, module in before.items())
