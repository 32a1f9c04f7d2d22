from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.measure import count_macs, count_params, macs_by_module


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[], nn.Module]
    inputs: Any
    macs: int


class TimesVector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.bias = nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight @ x + torch.addmv(self.bias, self.weight, x) + torch.dot(self.weight[0], x)


class PairSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, *, left: torch.Tensor, right: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.fc(left) + self.fc(right["x"])


def attention(length: int, batch: int, width: int) -> int:
    """Query, key, value and output projections, then scores and weighted sum."""
    return 4 * length * batch * width**2 + 2 * batch * length**2 * width


CASES = (
    Case("linear", lambda: nn.Linear(5, 7), torch.randn(2, 5), 2 * 5 * 7),
    Case("convolution", lambda: nn.Conv2d(3, 8, 3, padding=1), torch.randn(1, 3, 6, 6), 36 * 8 * 3 * 9),
    Case("strided", lambda: nn.Conv2d(4, 6, 3, stride=2), torch.randn(2, 4, 9, 9), 2 * 16 * 6 * 4 * 9),
    Case("depthwise", lambda: nn.Conv2d(8, 8, 5, groups=8, padding=2), torch.randn(1, 8, 4, 4), 16 * 8 * 25),
    Case("grouped", lambda: nn.Conv2d(8, 12, 1, groups=4), torch.randn(1, 8, 4, 4), 16 * 12 * 2),
    Case(
        "transposed", lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), torch.randn(1, 2, 4, 4), 16 * 2 * 3 * 4
    ),
    Case("bilinear", lambda: nn.Bilinear(3, 4, 5), (torch.randn(2, 3), torch.randn(2, 4)), 2 * 5 * 3 * 4),
    Case("lstm", lambda: nn.LSTM(5, 7), torch.randn(3, 2, 5), 3 * 2 * 4 * 7 * (5 + 7)),
    Case(
        "lstm, two layers, both ways",
        lambda: nn.LSTM(5, 7, 2, bidirectional=True),
        torch.randn(3, 2, 5),
        3 * 2 * 2 * 4 * 7 * ((5 + 7) + (14 + 7)),
    ),
    Case("gru", lambda: nn.GRU(5, 7, batch_first=True), torch.randn(2, 3, 5), 3 * 2 * 3 * 7 * (5 + 7)),
    Case(
        "attention", lambda: nn.MultiheadAttention(16, 4), (torch.randn(6, 2, 16),) * 3, attention(6, 2, 16)
    ),
    Case(
        "transformer layer",
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        torch.randn(2, 6, 16),
        attention(6, 2, 16) + 2 * (2 * 6 * 16 * 32),
    ),
    Case("matrix times vector", TimesVector, torch.randn(5), 4 * 5 + 4 * 5 + 5),
    Case("keywords", PairSum, {"left": torch.randn(1, 3), "right": {"x": torch.randn(4, 3)}}, 5 * 3 * 2),
    Case("no product", lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), torch.randn(1, 3, 4, 4), 0),
    Case("embedding", lambda: nn.Embedding(10, 4), torch.tensor([[1, 2]]), 0),
)


class NeedsValues(nn.Module):
    """Control flow that reads a value, so the meta device cannot follow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs) if self.gate.item() == 0 else None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_macs_follow_the_formula(case: Case) -> None:
    assert count_macs(case.build(), case.inputs) == case.macs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_real_run_counts_the_same(case: Case) -> None:
    assert count_macs(NeedsValues(case.build()), case.inputs) == case.macs


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "mobilenet_v3_small", "inception_v3", "vit_b_16", "swin_t"]
)
def test_known_networks_agree_with_their_published_figures(name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    published = models.get_model_weights(name).DEFAULT.meta
    size = 299 if name == "inception_v3" else 224
    with torch.device("meta"):
        model = models.get_model(name, **({"init_weights": False} if name == "inception_v3" else {}))
    assert round(count_macs(model, torch.empty(1, 3, size, size)) / 1e9, 3) == published["_ops"]
    assert count_params(model) == published["num_params"]


def test_resnet18_to_the_last_multiplication() -> None:
    models = pytest.importorskip("torchvision.models")
    assert count_macs(models.resnet18(), torch.randn(1, 3, 224, 224)) == 1_814_073_344


def test_modules_get_their_share() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), nn.ReLU())
    counts = macs_by_module(model, torch.randn(1, 3, 2, 2))
    assert counts == {"": 128, "0": 48, "1": 80, "1.1": 80}


@pytest.mark.parametrize("wrap", [lambda model: model, NeedsValues], ids=["meta", "real"])
def test_the_network_and_torch_stay_as_they_were(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model = wrap(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()))
    model.train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x = torch.randn(3, 4)
    with torch.inference_mode():
        assert count_macs(model, x) == 48
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()


class HandsOnItsToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.body = nn.Parameter(torch.zeros(1, 1, 4)), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.token.expand(x.shape[0], -1, -1))


def test_a_parameter_handed_to_a_module_is_counted() -> None:
    assert count_macs(HandsOnItsToken(), torch.randn(1, 3)) == 20


def test_inputs_that_do_not_fit_are_named() -> None:
    with pytest.raises(UsageError, match=r"Linear does not run on the example inputs \(shapes \(1, 4\)\)"):
        count_macs(nn.Linear(3, 2), torch.randn(1, 4))
    with pytest.raises(UsageError, match="not a list"):
        count_macs(nn.Linear(3, 2), [torch.randn(1, 3)])  # type: ignore[arg-type]


class HandsOverATable(nn.Module):
    """Reads a value, so it runs for real; and hands a view of a parameter to a module."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.out = nn.Embedding(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = int(ids.max()) + 1
        return self.out(self.norm(self.table.weight)[:rows] + self.norm(self.table.weight[:rows]))


def test_parameters_handed_to_modules_count_for_real_too():
    model = HandsOverATable()
    assert count_macs(model, torch.tensor([1, 2])) == 3 * 4 * 2
    assert all(p.requires_grad for p in model.parameters())
