"""Networks whose kernels know no float64 are a class of their own: proven in float32, to 1e-5, and loudly."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

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
