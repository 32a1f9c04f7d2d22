"""Networks whose kernels know no float64 are a class of their own: proven in float32, to 1e-5, and loudly."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.surgery._precision import PromotedCasts, in_double

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def only_float() -> torch.library.CustomOpDef:
    @torch.library.custom_op("penjing_tests::halved", mutates_args=())
    def halved(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not torch.float32:
            raise RuntimeError("\"halved\" not implemented for 'Double'")
        return x / 2

    halved.register_fake(lambda x: torch.empty_like(x))
    return halved


class Net(nn.Module):
    def __init__(self, kernel: torch.library.CustomOpDef) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kernel = kernel._opoverload
        self.bend = 0.0
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.tensor([1.0, 1.0 + self.bend])
        return self.c(self.kernel(self.b(F.relu(self.a(x))))) * table[:, None, None]


def test_float32_is_said_by_a_warning_the_plan_and_the_verification(only_float: torch.library.CustomOpDef):
    model = Net(only_float).eval()
    with pytest.warns(UserWarning, match="float32 to 1e-05 only"):
        slim, plan = pj.prune(model, X, ratio=0.5)
    assert slim.a.out_channels == 4
    assert any("float32" in policy for policy in plan.policies)
    proof = pj.verify(model, slim, plan, X)
    assert proof.passed
    assert proof.precision == "float32"
    assert "no float64" in proof.note
    assert proof.max_error <= 1e-5


def test_float32_still_finds_what_is_wrong(only_float: torch.library.CustomOpDef):
    model = Net(only_float).eval()
    with pytest.warns(UserWarning, match="float32"):
        slim, plan = pj.prune(model, X, ratio=0.5)
    assert isinstance(slim, Net)
    slim.bend = 1e-3
    proof = pj.verify(model, slim, plan, X)
    assert not proof.passed
    assert "allowed: 1e-05" in proof.cause


def test_float64_says_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    proof = pj.verify(model, slim, plan, X)
    assert (proof.precision, proof.note) == ("float64", "")
    assert not any("float32" in policy for policy in plan.policies)


def test_numbers_written_as_float32_do_not_weaken_the_proof():
    class Numbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.relu(self.a(x)) / torch.sqrt(torch.tensor(7, dtype=torch.float32))
            return self.b(x.to(torch.float32) * torch.tensor(0.1))

    model = Numbers().eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    proof = pj.verify(model, slim, plan, X)
    assert proof.passed, proof.cause
    assert proof.precision == "float64"


class Limits(nn.Module):
    """Asks for the limits of the float type it runs in, three times."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.weight = nn.Linear(6, 16), nn.Linear(16, 3), nn.Parameter(torch.rand(16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.rms_norm(self.a(x), self.weight.shape, self.weight)
        y = torch.rms_norm(1e-3 * y, y.shape[-1:])
        return self.b(y / y.norm(dim=-1, keepdim=True).clamp(min=1e5 * torch.finfo(x.dtype).eps))


def test_the_limits_of_the_networks_own_float_type_are_part_of_it():
    torch.manual_seed(0)
    model, example = Limits().eval(), torch.randn(4, 6)
    known = torch.finfo
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert slim.a.out_features == 8
    assert pj.verify(model, slim, plan, torch.randn(2, 6)).max_error <= 1e-9
    assert torch.finfo is known


def test_calls_pass_without_the_compilers_check():
    """torch wraps a mode's method so that it imports the compiler (a second of work) at its first call."""
    assert not hasattr(PromotedCasts.__torch_dispatch__, "__wrapped__")


@pytest.mark.parametrize(
    ("shape", "weight", "groups", "options"),
    [
        ((2, 24, 9, 8), (24, 1, 3, 5), 24, {"stride": (1, 2), "padding": (1, 2)}),
        ((1, 16, 11, 11), (32, 2, 3, 3), 8, {"stride": (2, 2), "padding": (2, 2), "dilation": (2, 3)}),
        ((2, 18, 17), (9, 2, 7), 9, {"stride": (3,), "padding": (0,)}),
        ((1, 16, 4, 5, 6), (8, 2, 1, 3, 2), 8, {"padding": (0, 1, 1)}),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_convolutions_in_many_groups_by_their_windows(
    shape: tuple[int, ...], weight: tuple[int, ...], groups: int, options: dict[str, Any], biased: bool
):
    rank, generator = len(shape) - 2, torch.Generator().manual_seed(0)
    x, kernel, bias = (
        torch.randn(s, generator=generator, dtype=torch.float64) for s in (shape, weight, weight[:1])
    )
    places = [list(options.get(k, (d,) * rank)) for k, d in (("stride", 1), ("padding", 0), ("dilation", 1))]
    args = [x, kernel, bias if biased else None, *places, False, [0] * rank, groups]
    op = torch.ops.aten.convolution.default
    assert (in_double(op, args, {}) - op(*args)).abs().max() < 1e-12


@pytest.mark.parametrize("groups", [32, 8])
def test_wrong_channels_of_grouped_convolutions_are_found(groups: int):
    """The smaller network's windows and the reference's taps are two ways: neither hides what the other shows."""
    torch.manual_seed(0)
    body = nn.Conv2d(32, 32, 3, padding=1, groups=groups)
    model = nn.Sequential(nn.Conv2d(3, 32, 1), nn.Tanh(), body, nn.Tanh(), nn.Conv2d(32, 2, 1)).eval()
    x = torch.randn(2, 3, 8, 8)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert pj.verify(model, slim, plan, x).max_error <= 1e-9
    inner = slim.get_submodule("2")
    forward = inner.forward
    inner.forward = lambda x: forward(x.flip(1)).flip(1)
    assert not pj.verify(model, slim, plan, x).passed
    inner.forward = lambda x: forward(x) * (1 + 1e-7)
    assert not pj.verify(model, slim, plan, x).passed
