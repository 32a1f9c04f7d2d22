"""Networks and arguments that once were proven vacuously, altered, or met with a foreign error."""

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

VECTORS = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
PICTURES = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Two linear layers around `between`; `after` sees the outputs."""

    def __init__(
        self,
        between: Callable[[nn.Module, torch.Tensor], Any] = lambda self, h: F.relu(h),
        after: Callable[[nn.Module, torch.Tensor], Any] = lambda self, y: y,
        hidden: int = 16,
    ) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, hidden), nn.Linear(hidden, 4)
        self.between, self.after = between, after
        self.count = torch.zeros(1)
        self.memory = types.SimpleNamespace(scale=None)
        self.register_buffer("flag", torch.tensor(1))
        self.sizes = (10, 2, 2, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.after(self, self.b(self.between(self, self.a(x))))


def numbered(self: nn.Module, h: torch.Tensor) -> torch.Tensor:
    return F.relu(h) * torch.arange(h.shape[1], device=h.device, dtype=h.dtype)


@pytest.mark.parametrize(
    "after", [lambda s, y: y, lambda s, y: y.argmax(-1), lambda s, y: y.softmax(-1) > 0.95]
)
def test_discrete_outputs_hide_nothing(after: Any):
    with pytest.raises(pj.VerificationError):
        pj.prune(Network(numbered, after).eval(), VECTORS, ratio=0.5)


def test_a_gate_at_zero_hides_nothing():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.i, self.a, self.b, self.o = (
                nn.Conv2d(n, m, 3, padding=1) for n, m in ((3, 8), (8, 8), (8, 8), (8, 2))
            )
            self.gate = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.i(x)
            h = self.a(x).abs()
            return self.o(x + self.gate * self.b(h + h.shape[1]))

    _, plan = pj.prune(Gated().eval(), PICTURES, ratio=0.5)
    assert [s.group for s in plan.skipped] == ["a.weight:0"]


def test_a_norm_of_parameters_is_no_exact_cut():
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.v = nn.Linear(8, 16), nn.Parameter(torch.randn(4, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(F.relu(self.a(x)), self.v / self.v.norm(dim=1, keepdim=True))

    assert [g.fidelity for g in pj.trace(Normed(), VECTORS).groups] == ["renormalized"]


def test_what_the_forward_keeps_is_as_it_was():
    def remember(self: Any, h: torch.Tensor) -> torch.Tensor:
        self.count += 1
        if self.memory.scale is None:
            self.memory.scale = torch.ones(h.shape[-1], device=h.device)
        return h * self.memory.scale

    model = Network(remember).eval()
    random_state = torch.random.get_rng_state()
    pj.prune(model, VECTORS, ratio=0.5)
    assert model.count.item() == 0
    assert model.memory.scale is None
    assert torch.equal(random_state, torch.random.get_rng_state())
    assert model(VECTORS).shape == (2, 4)


def test_tensors_in_plain_objects_are_outputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> Any:
            h = self.a(x)
            return self.b(h), types.SimpleNamespace(features=h)

    with pytest.raises(pj.VerificationError, match="network output"):
        pj.prune(Two(), VECTORS, ratio=0.5)


def test_code_that_only_training_runs_is_seen():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 12), nn.Linear(12, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = F.relu(self.a(x))
            h = h * torch.ones(1, 16) if self.training else h
            return self.c(F.relu(self.b(h)))

    slim, _ = pj.prune(Noisy().eval(), VECTORS, ratio=0.5)
    slim.train()(VECTORS).sum().backward()
    assert (slim.a.out_features, slim.b.out_features) == (16, 6)


def reads_values(self: Any, h: torch.Tensor) -> torch.Tensor:
    return h * int(self.flag.item()) if self.flag == 1 and torch.tensor([True, False]).any() else h


def literals(self: Any, y: torch.Tensor) -> torch.Tensor:
    return (y * torch.tensor([0.5], device=y.device))[:, [0, 1]]


def pieces(self: Any, h: torch.Tensor) -> torch.Tensor:
    a, b, c, d = torch.split(h, self.sizes, -1)
    return torch.cat([a.relu(), b.tanh(), c.sigmoid(), d], -1)


@pytest.mark.parametrize("model", [Network(reads_values), Network(after=literals), Network(pieces)])
def test_ordinary_code_prunes(model: nn.Module):
    slim, plan = pj.prune(model.eval(), VECTORS, ratio=0.5)
    assert plan.skipped == ()
    assert slim.a.out_features == 8


def test_as_many_heads_as_head_dims():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    model = nn.Sequential(nn.Linear(4, 16), layer, nn.Linear(16, 3)).eval()
    slim, _ = pj.prune(model, torch.randn(2, 5, 4), ratio=0.5)
    assert slim[1].self_attn.num_heads == 2


def test_inputs_that_must_be_positive():
    model = Network()
    logged = nn.Sequential(model).eval()
    logged.register_forward_pre_hook(lambda m, args: (torch.log(args[0] + 1e-6),))
    slim, plan = pj.prune(logged, torch.rand(2, 8), ratio=0.5)
    assert plan.skipped == ()
    assert slim[0].a.out_features == 8


def test_a_random_forward_is_refused_at_once():
    model = Network(lambda self, h: F.dropout(h, 0.5, training=True)).eval()
    with pytest.raises(pj.VerificationError, match="random"):
        pj.prune(model, VECTORS, ratio=0.5)


def test_standardised_weights_follow():
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.b.weight
            flat = weight.reshape(1, weight.shape[0], -1)
            weight = F.batch_norm(flat, None, None, training=True).reshape_as(weight)
            return F.conv2d(F.relu(self.a(x)), weight, self.b.bias)

    slim, plan = pj.prune(Standardised().eval(), PICTURES, ratio=0.5)
    assert plan.skipped == ()
    assert slim.a.out_channels == 4


def shared_storage() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = nn.Parameter(model[0].weight.data)
    return model


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (shared_storage, "share memory"),
        (lambda: nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 3)), "lazy"),
        (lambda: None, "torch.nn.Module"),
        (lambda: nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 3)).to("meta"), "meta device"),
    ],
)
def test_what_cannot_be_cut_is_refused(make: Callable[[], Any], word: str):
    with pytest.raises(pj.UsageError, match=word):
        pj.prune(make(), VECTORS, ratio=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": {0: 0.5}},
        {"budget": 0.5},
        {"ratio": 0.5, "protect": None},
        {"ratio": 0.5, "protect": (0,)},
        {"ratio": 0.5, "granularity": None},
        {"ratio": 0.5, "round_to": 2.5},
        {"ratio": 0.5, "seed": -1},
        {"ratio": 0.5, "seed": None},
        {"ratio": 0.5, "criterion": lambda group, model: ["a"] * len(group)},
        {"ratio": 0.5, "criterion": "taylor", "calibration": 5, "loss": "ce"},
        {
            "ratio": 0.5,
            "criterion": "taylor",
            "calibration": [VECTORS],
            "loss": lambda out, batch: out.sum(1),
        },
        {"ratio": 0.5, "criterion": "taylor", "calibration": [VECTORS], "loss": lambda out, batch: 1.0},
    ],
)
def test_wrong_arguments_are_told(options: dict[str, Any]):
    with pytest.raises(pj.UsageError):
        pj.prune(Network().eval(), VECTORS, **options)


def test_trim_evaluates_a_copy():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.f(x)

    model = nn.Sequential(Residual(), Residual(), nn.Linear(8, 2)).train()

    def evaluate(net: nn.Module) -> float:
        return net.eval()(VECTORS).sum().item()

    pj.trim(model, VECTORS, evaluate=evaluate, drop=1)
    assert all(m.training for m in model.modules())


def test_optimizers_whose_state_cannot_follow_are_refused():
    model = Network().eval()
    slim, plan = pj.prune(model, VECTORS, ratio=0.5)
    optimizer = torch.optim.Adafactor(model.parameters())
    model(VECTORS).sum().backward()
    optimizer.step()
    with pytest.raises(pj.UsageError, match="Adafactor"):
        pj.remap_optimizer(optimizer, model, slim, plan)


class States(nn.Module):
    """Reads its states by `torch.einsum`, which multiplies instead where a single one is left."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = torch.einsum("td,tn->tdn", self.x(x), self.b(x))
        return torch.einsum("tdn,tn->td", states, self.c(x))


def test_each_culprit_bears_its_own_cause_and_a_hint_where_a_single_unit_stays():
    torch.manual_seed(0)
    model = nn.Sequential(States(), nn.ReLU(), States(), nn.Linear(8, 2)).eval()
    example = torch.randn(4, 8)
    _, plan = pj.prune(model, example, ratio=0.8)
    causes = {s.group: s.cause for s in plan.skipped}
    assert causes.keys() == {"0.b.weight:0", "2.b.weight:0"}
    for group, cause in causes.items():
        assert cause.startswith(f"{group[0]}: runs aten.mul")
        assert cause.endswith("protect the part, or in Python give min_kept=2")
    slim, plan = pj.prune(model, example, ratio=0.8, min_kept=2)
    assert not plan.skipped
    assert slim[0].b.out_features == 2
