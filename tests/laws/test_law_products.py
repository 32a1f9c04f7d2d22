"""Every product of a parameter with data is its matrices times what the weight meets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.structure._products import Parameters, Product, kept_outputs, product


@dataclass(frozen=True)
class Case:
    name: str
    weight: tuple[int, ...]
    data: tuple[int, ...]
    run: Callable[[Tensor, Tensor], Tensor]


CASES = [
    Case("linear", (5, 3), (4, 7, 3), F.linear),
    Case("linear on turned data", (5, 3), (7, 4, 3), lambda x, w: F.linear(x.transpose(0, 1), w)),
    Case("matrix on the left", (5, 3), (3, 6), lambda x, w: w @ x),
    Case("a slice of rows", (6, 3), (4, 3), lambda x, w: F.linear(x, w[2:5])),
    Case("a slice of columns", (6, 5), (4, 3), lambda x, w: F.linear(x, w[:, 1:4])),
    Case("batched", (2, 3, 5), (2, 4, 3), torch.bmm),
    Case("conv2d", (6, 3, 3, 2), (2, 3, 8, 7), lambda x, w: F.conv2d(x, w, stride=2, padding=1, dilation=2)),
    Case("pointwise", (6, 3, 1, 1), (2, 3, 4, 4), F.conv2d),
    Case("grouped", (6, 2, 3, 3), (2, 4, 5, 5), lambda x, w: F.conv2d(x, w, padding=1, groups=2)),
    Case("depthwise", (4, 1, 3, 3), (2, 4, 5, 5), lambda x, w: F.conv2d(x, w, padding=1, groups=4)),
    Case("conv1d", (6, 3, 3), (2, 3, 9), lambda x, w: F.conv1d(x, w, stride=2)),
    Case("conv3d", (4, 3, 2, 2, 2), (1, 3, 4, 4, 4), F.conv3d),
]


class Net(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(case.weight, dtype=torch.float64))
        self.case = case

    def forward(self, x: Tensor) -> Tensor:
        return self.case.run(x, self.weight)


class Seen(TorchDispatchMode):
    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.parameters, self.found = parameters, list[tuple[Product, Tensor]]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        item, result = product(func, args, kwargs or {}, self.parameters), func(*args, **(kwargs or {}))
        if item is not None:
            self.found.append((item, result))
        return result


def seen(net: nn.Module, x: Tensor) -> tuple[Product, Tensor]:
    with torch.no_grad(), Seen(Parameters(net)) as mode:
        net(x)
    assert len(mode.found) == 1
    return mode.found[0]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_product_is_its_matrices_times_phi(case: Case) -> None:
    torch.manual_seed(0)
    net = Net(case)
    item, y = seen(net, torch.randn(case.data, dtype=torch.float64))
    phi = item.phi(None)
    assert item.name == "weight"
    assert phi.shape[1] == item.positions
    assert torch.allclose(phi @ item.matrices.mT, item.results(y, None), atol=1e-12)  # float64 rounding
    some = torch.tensor([0, item.positions - 1])
    assert torch.equal(item.phi(some), phi[:, some])
    assert torch.equal(item.results(y, some), item.results(y, None)[:, some])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_what_is_written_is_read(case: Case) -> None:
    torch.manual_seed(0)
    net, x = Net(case), torch.randn(case.data, dtype=torch.float64)
    item, y = seen(net, x)
    with torch.no_grad():
        item.write(2 * item.matrices)
    assert torch.allclose(seen(net, x)[1], 2 * y)


def test_kept_outputs_follow_slices_and_turned_weights() -> None:
    for case, lost, kept in (
        (CASES[0], {0: (1, 4)}, [0, 2, 3]),
        (CASES[0], {1: (1,)}, None),
        (CASES[2], {0: (0,), 1: (2,)}, [1, 2, 3, 4]),
        (CASES[3], {0: (0, 3)}, [0, 2]),
        (CASES[5], {2: (4,)}, [0, 1, 2, 3]),
        (CASES[6], {0: (5,), 1: (1,)}, [0, 1, 2, 3, 4]),
    ):
        net = Net(case)
        item, _ = seen(net, torch.randn(case.data, dtype=torch.float64))
        found = kept_outputs(item, lost, net.weight.detach())
        assert (None if found is None else found.tolist()) == kept
