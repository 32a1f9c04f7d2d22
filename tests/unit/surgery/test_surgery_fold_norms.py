"""Batch norms folded all at once: the network as it is handed over."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import penjing as pj

X = torch.randn(2, 3, 16, 16)


class Net(nn.Module):
    """Two folds, a depthwise one, a norm that others read past, and one behind no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16)
        self.depth, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16)
        self.read, self.norm3 = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.last, self.head = nn.BatchNorm2d(16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        x = x + self.norm2(self.depth(x))
        y = self.read(x)
        x = (y + self.norm3(y)).relu()
        return self.head(self.last(x).mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def norms(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]


def test_what_can_be_folded_is_and_the_rest_stays(tmp_path: Path) -> None:
    model = net()
    slim, plan = pj.fold_norms(model, X)
    assert norms(slim) == ["norm3", "last"]
    assert norms(model) == ["norm", "norm2", "norm3", "last"]
    torch.testing.assert_close(slim(X), model(X), atol=1e-5, rtol=1e-4)
    proof = pj.verify(model, slim, plan, X)
    assert proof.passed
    assert proof.max_error <= 1e-9
    pj.save(tmp_path, slim, plan, source=f"file:{__file__}:net")
    loaded = pj.load(tmp_path, model=net())
    assert torch.equal(loaded(X), slim(X))


def test_depthwise_layers_are_folded_after_units_went() -> None:
    model = net()
    slim, plan = pj.prune(model, X, ratio=0.5)
    folded, later = pj.fold_norms(slim, X)
    whole = plan.then(later)
    assert torch.equal(pj.apply(model, whole)(X), folded(X))
    assert folded.depth.groups == slim.depth.groups < 16
    assert pj.verify(model, folded, whole, X).passed


def test_a_network_in_training_mode_is_folded_as_it_answers() -> None:
    model = net().train()
    slim, _ = pj.fold_norms(model, X)
    assert model.training
    torch.testing.assert_close(slim.eval()(X), net()(X), atol=1e-5, rtol=1e-4)


def test_nothing_to_fold_is_a_copy() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    slim, plan = pj.fold_norms(model, torch.randn(2, 4))
    assert not plan.edits
    assert slim is not model
    assert torch.equal(slim[0].weight, model[0].weight)


def test_a_fold_that_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from penjing.surgery._adjustments import _registry

    found = _registry.ADJUSTMENTS["fold_norm"]

    def wrong(modules, options):
        layer, rest = found.change(modules, options)
        layer.bias.data += 1e-3
        return layer, rest

    monkeypatch.setitem(_registry.ADJUSTMENTS, "fold_norm", replace(found, change=wrong))
    network = net()
    slim, plan = pj.fold_norms(network, X)
    assert plan.edits == ()
    assert torch.equal(slim(X), network.eval()(X))


class ReluFirst(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.relu())


class Scaled(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class Asks(nn.Module):
    """Its code looks at the norm's own attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.n = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        assert self.n.num_features == 8
        return self.n(self.a(x))


@pytest.mark.parametrize(
    "odd", [ReluFirst(8), Scaled(8), Asks()], ids=["relu first", "weights of its own", "asked"]
)
def test_norms_whose_fold_is_not_proven_stay_and_the_others_are_folded(odd: nn.Module) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), odd, nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.LazyLinear(4)
    ).eval()
    x = torch.randn(2, 3, 12, 12)
    network(x)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    folded, plan = pj.fold_norms(network, x)
    assert [edit.modules[-1] for edit in plan.edits] == ["3"]  # type: ignore[union-attr]
    assert torch.allclose(folded(x), network(x), atol=1e-5)
    pj.fold_norms(network, x, proven=False)  # for timing alone: it does not raise
