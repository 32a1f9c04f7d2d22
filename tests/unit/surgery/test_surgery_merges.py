"""Computed weights are merged by the plan; what can be neither merged nor sliced is refused with the way out."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import penjing as pj
from penjing.core._edits import MergeWeight

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 4)
    )


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight.tanh()


def old_weight_norm(module: nn.Module) -> None:
    torch.nn.utils.weight_norm(module)  # type: ignore[deprecated]


def own(module: nn.Module) -> None:
    parametrize.register_parametrization(module, "weight", Doubled())


def two(module: nn.Module) -> None:
    parametrizations.weight_norm(module)
    parametrize.register_parametrization(module, "bias", Doubled())


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "old weight_norm": old_weight_norm,
    "weight_norm": parametrizations.weight_norm,
    "old spectral_norm": torch.nn.utils.spectral_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": lambda m: parametrizations.orthogonal(m) if isinstance(m, nn.Linear) else None,
    "own": own,
    "two": two,
}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.*:FutureWarning")


def computed(way: str) -> nn.Sequential:
    model = network()
    for module in (model[0], model[3], model[5]):
        WAYS[way](module)
    model(X)  # a forward leaves weights with a graph on old-style modules
    return model.eval()


def snapshot(model: nn.Module) -> list[Any]:
    tensors = (*model.named_parameters(), *model.named_buffers())
    hooks = [sorted(map(str, map(type, m._forward_pre_hooks.values()))) for m in model.modules()]
    return [
        [(n, id(t), t.tolist(), t.requires_grad) for n, t in tensors],
        hooks,
        [*map(type, model.modules())],
    ]


@pytest.mark.parametrize("way", WAYS)
def test_computed_weights_are_merged(way: str):
    model = computed(way)
    before, reference = snapshot(model), model(X)
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert snapshot(model) == before
    assert torch.equal(model(X), reference)
    merges = [e for e in plan.edits if isinstance(e, MergeWeight)]
    assert plan.edits[: len(merges)] == tuple(merges)
    assert {f"{e.module}.{e.tensor}" for e in merges} <= {
        "0.weight",
        "0.bias",
        "3.weight",
        "3.bias",
        "5.weight",
        "5.bias",
    }
    assert any(p.startswith("merged") for p in plan.policies)
    assert [type(m) for m in slim.modules()] == [type(m) for m in network().modules()]
    assert set(slim.state_dict()) == set(network().state_dict())
    assert (slim[0].out_channels, slim[3].out_channels, slim[5].in_features) == (4, 3, 48)
    assert plan.removed["3.weight"].keys() == {0, 1}
    proof = pj.verify(model, slim, plan, X)
    assert proof.passed, proof.cause
    again = pj.apply(model, pj.Plan.from_json(plan.to_json()))
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in slim.state_dict().items())
    merged = pj.apply(model, dataclasses.replace(plan, edits=tuple(merges)))
    torch.testing.assert_close(merged(X), reference)


@pytest.mark.parametrize("way", WAYS)
def test_trace_sees_the_merged_network(way: str):
    model, plain = computed(way), network()
    seen, known = pj.trace(model, X), pj.trace(plain, X)
    assert {g.name for g in seen.groups} == {g.name for g in known.groups}
    assert seen.fingerprint != known.fingerprint


@pytest.mark.parametrize("way", ["old weight_norm", "weight_norm", "spectral_norm", "old spectral_norm"])
def test_a_frozen_weight_stays_frozen_and_modes_stay(way: str):
    model = computed(way).train()
    model[1].eval()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    slim, _ = pj.prune(model, X, ratio=0.5)
    assert not slim[0].weight.requires_grad
    assert slim[3].weight.requires_grad
    assert [m.training for m in slim] == [m.training for m in model]


def test_a_training_mode_spectral_norm_keeps_its_vectors():
    model = network().train()
    parametrizations.spectral_norm(model[0])
    before = snapshot(model)
    pj.prune(model, X, ratio=0.5)
    assert snapshot(model) == before


@pytest.mark.parametrize("way", ["old weight_norm", "weight_norm", "own"])
def test_computed_weights_on_meta(way: str):
    with torch.device("meta"):
        model = network()
        for module in (model[0], model[3]):
            WAYS[way](module)
    _, plan = pj.prune(model, X.to("meta"), ratio=0.5, criterion="random")
    real = network()
    for module in (real[0], real[3]):
        WAYS[way](module)
    assert pj.verify(real, pj.apply(real, plan), plan, X).passed


@pytest.mark.parametrize("way", [old_weight_norm, parametrizations.weight_norm])
def test_recurrent_weights_are_merged(way: Callable[..., Any]):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.out = nn.LSTM(5, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.rnn(x)[0])

    model, x = Net(), torch.randn(2, 4, 5)
    for name in ("weight_hh_l0", "weight_ih_l0"):
        if way is old_weight_norm:
            torch.nn.utils.weight_norm(model.rnn, name)  # type: ignore[deprecated]
        else:
            way(model.rnn, name)
    model.eval()(x)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.rnn.hidden_size == 4
    assert slim(x).shape == (2, 4, 2)
    assert pj.verify(model, slim, plan, x).passed


def test_trimming_and_pruning_merge_once():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = parametrizations.weight_norm(nn.Linear(12, 12))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + F.relu(self.f(x))

    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 12), Block(), Block(), nn.Linear(12, 3)).eval(), torch.randn(4, 5)
    trimmed, first, _ = pj.trim(model, x, evaluate=lambda m: float(m(x).detach().square().sum()), drop=1)
    slim, second = pj.prune(trimmed, x, ratio=0.5)
    composed = first.then(second)
    assert pj.verify(model, trimmed, first, x).passed
    proof = pj.verify(model, slim, composed, x)
    assert proof.passed, proof.cause


def test_a_plan_that_merges_other_weights_is_refused():
    model = computed("weight_norm")
    _, plan = pj.prune(model, X, ratio=0.5)
    fewer = dataclasses.replace(plan, edits=plan.edits[1:])
    with pytest.raises(pj.PlanError, match=r"0\.weight"):
        pj.apply(model, fewer)


def test_an_optimizer_over_what_was_merged_is_refused():
    model = computed("weight_norm")
    slim, plan = pj.prune(model, X, ratio=0.5)
    with pytest.raises(pj.UsageError, match="new optimizer"):
        pj.remap_optimizer(torch.optim.SGD(model.parameters(), lr=0.1), model, slim, plan)


class Adapted(nn.Module):
    """The shape of a LoRA layer."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(96, 4)
        self.lora_A, self.lora_B = (
            nn.ModuleDict({"x": nn.Linear(96, 2)}),
            nn.ModuleDict({"x": nn.Linear(2, 4)}),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["x"](self.lora_A["x"](x))

    def merge(self) -> None: ...


def packed() -> nn.Module:
    module = nn.Linear(96, 4)
    module.weight = nn.Parameter(torch.zeros(4, 96, dtype=torch.int8), requires_grad=False)
    return module


def in_place() -> nn.Module:
    model = network()
    model.compile(backend="eager")
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scripted": (lambda: torch.jit.trace(network().eval(), X), "eager network"),
    "compiled": (lambda: torch.compile(network(), backend="eager"), "_orig_mod"),
    "compiled in place": (in_place, "before model.compile"),
    "data parallel": (lambda: nn.DataParallel(network()), "model.module"),
    "lora": (lambda: nn.Sequential(*network()[:5], Adapted()), "merge_and_unload"),
    "packed": (lambda: nn.Sequential(*network()[:5], packed()), "quantize the result"),
    "lazy": (lambda: nn.Sequential(*network()[:5], nn.LazyLinear(4)), "run model"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*jit", "ignore:Lazy modules")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sliced_is_refused_with_the_way_out(case: str):
    make, fix = REFUSED[case]
    model = make()
    for verb in (pj.trace, lambda m, x: pj.prune(m, x, ratio=0.5)):
        with pytest.raises(pj.UsageError, match=fix):
            verb(model, X)


def test_what_cannot_be_copied_is_told():
    model = network().eval()
    model[0].kept = threading.Lock()  # type: ignore[assignment]
    with pytest.raises((pj.PlanError, pj.VerificationError), match="cannot be copied"):
        pj.prune(model, X, ratio=0.5)
