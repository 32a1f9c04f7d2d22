"""What code compares is answered alike after pruning."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.structure import trace_forward
from penjing.structure._network._provenance import TracedInt

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


class Compares(nn.Module):
    """Two layers of 12 and a third of 16 neurons; the forward asks something about their sizes first."""

    def __init__(self, ask: Callable[["Compares", torch.Tensor, torch.Tensor], None]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 16)
        self.d, self.e, self.f = nn.Linear(12, 3), nn.Linear(12, 3), nn.Linear(16, 3)
        self.width, self.ask = 12, ask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b, c = F.relu(self.a(x)), F.relu(self.b(x)), F.relu(self.c(x))
        self.ask(self, a, b)
        return self.d(a) + self.e(b) + self.f(c)


def demand(holds: bool) -> None:
    if not holds:
        raise ValueError("another size")


def refuse(holds: bool) -> None:
    demand(not holds)


ASKED: dict[str, tuple[Callable[[Compares, torch.Tensor, torch.Tensor], None], tuple[int, int]]] = {
    "nothing": (lambda m, a, b: None, (6, 6)),
    "an equal attribute": (lambda m, a, b: demand(a.shape[1] == m.width), (6, 6)),
    "no other than the attribute": (lambda m, a, b: refuse(a.size(-1) != m.width), (6, 6)),
    "equal shapes": (lambda m, a, b: demand(a.shape == b.shape), (6, 6)),
    "a multiple": (lambda m, a, b: demand(a.shape[1] % 4 == 0), (8, 6)),
    "at least a number": (lambda m, a, b: demand(a.shape[1] >= 7), (7, 6)),
    "more than another": (lambda m, a, b: demand(a.shape[1] + b.shape[1] > 13), (6, 8)),
    "the literal": (lambda m, a, b: demand(a.shape[1] == 12), (12, 6)),
    "the larger of two": (lambda m, a, b: demand(max(a.shape[1], 9) == a.shape[1]), (9, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ASKED))
def test_answers_stay(name: str):
    ask, kept = ASKED[name]
    model = Compares(ask)
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert not plan.skipped
    assert (slim.a.out_features, slim.b.out_features) == kept
    assert slim.c.out_features == 8
    assert pj.verify(model, slim, plan, X).passed
    assert slim(X).shape == (2, 3)


def test_a_literal_that_a_size_is_compared_with_is_named():
    structure = pj.trace(Compares(ASKED["the literal"][0]), X)
    causes = {f.cause for f in structure.frozen if f.parameter == "a.weight" and f.dim == 0}
    assert causes == {"the network: compares sizes, computed in the code: no smaller size fits"}


def test_nobody_listens_after_a_trace():
    found = trace_forward(Compares(ASKED["an equal attribute"][0]), X)
    assert len(found.compared) == 1
    assert TracedInt.hear is None


def test_the_forward_of_a_whole_transformer_keeps_its_width_check():
    torch.manual_seed(0)
    model = nn.Transformer(32, 4, 1, 1, 48, batch_first=True).eval()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.body, self.head = nn.Linear(5, 32), model, nn.Linear(32, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x)
            return self.head(self.body(x, x))

    network, x = Wrapped(), torch.randn(2, 4, 5)
    slim, plan = pj.prune(network, x, ratio=0.5)
    assert not plan.skipped
    assert slim.embed.out_features == slim.body.d_model == 16
    assert pj.verify(network, slim, plan, x).passed


def _gated(x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x + bias) * (x + bias)


def test_what_a_trace_itself_compares_in_a_scripted_function_is_not_heard():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.bias, self.out = nn.Linear(5, 16), nn.Parameter(torch.randn(16)), nn.Linear(16, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(scripted(self.a(x), self.bias))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # deprecated, and still in many forwards
        scripted = torch.jit.script(_gated)
    model, x = Gated().eval(), torch.randn(4, 5)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.a.out_features == 8
    assert pj.verify(model, slim, plan, x).passed
