"""A step after `remap_optimizer` equals the slice of the original's step."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import penjing as pj

X = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    F.mse_loss(model(X), Y).backward()
    optimizer.step()


MAKERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: SGD(m.parameters(), lr=0.1),
    "momentum": lambda m: SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda m: Adam(m.parameters(), lr=0.01, amsgrad=True),
    "adamw": lambda m: AdamW(
        [{"params": [m[2].weight], "lr": 0.5}, {"params": [m[2].bias, *m[0].parameters()]}], lr=0.01
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_next_step_is_the_sliced_step(name: str):
    """The removed units are dead (zero out-going and in-coming weights, zero state), so both networks take one step."""
    model = network()
    dead = [1, 4, 5, 6]
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias):
            tensor[dead] = 0
        model[2].weight[:, dead] = 0
    optimizer = MAKERS[name](model)
    for _ in range(3):
        step(model, optimizer)
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert plan.removed["0.bias"] == {0: tuple(dead)}
    before = copy.deepcopy(optimizer.state_dict())
    mapped = pj.remap_optimizer(optimizer, model, slim, plan)
    assert type(mapped) is type(optimizer)
    assert repr(optimizer.state_dict()) == repr(before)
    assert {id(p) for g in mapped.param_groups for p in g["params"]} == {id(p) for p in slim.parameters()}
    assert [g["lr"] for g in mapped.param_groups] == [g["lr"] for g in optimizer.param_groups]
    step(model, optimizer)
    step(slim, mapped)
    kept = [i for i in range(8) if i not in dead]
    torch.testing.assert_close(slim[0].weight, model[0].weight[kept], rtol=0, atol=1e-12)
    torch.testing.assert_close(slim[0].bias, model[0].bias[kept], rtol=0, atol=1e-12)
    torch.testing.assert_close(slim[2].weight, model[2].weight[:, kept], rtol=0, atol=1e-12)
    torch.testing.assert_close(slim[2].bias, model[2].bias, rtol=0, atol=1e-12)


def test_parameters_of_dropped_blocks_leave_the_optimizer():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(6, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.tanh(self.f(x))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), Block(), Block(), nn.Linear(6, 3)).double()
    optimizer = Adam(model.parameters())
    step(model, optimizer)
    slim, plan, _ = pj.trim(model, X, evaluate=lambda m: float(F.mse_loss(m(X), Y).detach()), drop=1)
    mapped = pj.remap_optimizer(optimizer, model, slim, plan)
    assert {id(p) for g in mapped.param_groups for p in g["params"]} == {id(p) for p in slim.parameters()}
    assert len(mapped.state) == len(list(slim.parameters()))
    step(slim, mapped)


def test_another_models_optimizer_is_refused():
    model = network()
    slim, plan = pj.prune(model, X, ratio=0.5)
    with pytest.raises(pj.UsageError, match="4 of the optimizer's 4"):
        pj.remap_optimizer(SGD(network().parameters(), lr=0.1), model, slim, plan)
