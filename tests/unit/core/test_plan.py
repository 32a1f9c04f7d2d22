"""Plans: coordinates, composition, JSON."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import penjing as pj
from penjing.core import PlanError
from penjing.core._edit_json import _pack, _unpack
from penjing.core._edits import DropBlock, Removal, RemoveUnits
from penjing.core._plan import Plan

FEW = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(F.relu(self.one(x)))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 12), Block(12), Block(12), Block(12), nn.Linear(12, 3)).double()


X = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def same(a: nn.Module, b: nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_removed_is_sorted_and_in_original_coordinates():
    edits = (
        RemoveUnits(
            group="a", granularity="channel", units=(1,), removals=(Removal(name="b", dim=1, indices=(4, 7)),)
        ),
        RemoveUnits(
            group="c", granularity="channel", units=(0,), removals=(Removal(name="b", dim=0, indices=(2,)),)
        ),
        RemoveUnits(
            group="d", granularity="channel", units=(0,), removals=(Removal(name="b", dim=1, indices=(0, 4)),)
        ),
        DropBlock(module="m", tensors=(("m.w", 3), ("m.s", 1))),
    )
    removed = Plan(edits=edits, fingerprint="").removed
    assert {n: dict(d) for n, d in removed.items()} == {
        "b": {0: (2,), 1: (0, 4, 7)}, "m.s": {0: (0,)}, "m.w": {0: (0, 1, 2)},
    }  # fmt: skip
    with pytest.raises(TypeError):
        removed["b"] = {}  # type: ignore[index]


@FEW
@given(st.sets(st.integers(0, 40)))
def test_runs_pack_and_unpack(indices: set[int]):
    assert _unpack(_pack(tuple(sorted(indices)))) == tuple(sorted(indices))


@FEW
@given(st.integers(2, 30), st.data())
def test_composition_maps_indices_back(n: int, data: st.DataObject):
    """Removing A, then B of what is left, is removing A and the original places of B."""
    first = data.draw(st.sets(st.integers(0, n - 1), min_size=0, max_size=n - 1))
    left = [i for i in range(n) if i not in first]
    second = data.draw(st.sets(st.integers(0, len(left) - 1)))

    def plan(indices: set[int]) -> Plan:
        removal = Removal(name="w", dim=1, indices=tuple(sorted(indices)))
        unit = RemoveUnits(group="g", granularity="channel", units=(), removals=(removal,))
        return Plan(edits=(unit,) if indices else (), fingerprint="")

    both = plan(first).then(plan(second))
    expected = tuple(sorted(first | {left[i] for i in second}))
    assert dict(both.removed) == ({"w": {1: expected}} if expected else {})
    assert both.since(plan(first), "") == plan(second)


def test_pruning_twice_is_the_composed_plan_on_the_original():
    model = network()
    once, first = pj.prune(model, X, ratio=0.3, criterion="random", seed=1)
    twice, second = pj.prune(once, X, ratio=0.4, criterion="random", seed=2)
    thrice, third = pj.prune(twice, X, ratio=0.3, criterion="l2")
    composed = first.then(second).then(third)
    assert same(pj.apply(model, composed), thrice)
    assert same(pj.apply(model, pj.Plan.from_json(composed.to_json())), thrice)
    assert same(pj.apply(model, first.then(second.then(third))), thrice)
    proof = pj.verify(model, thrice, composed, X)
    assert proof.passed, proof.cause


@pytest.mark.parametrize("trim_first", [True, False])
def test_trimming_and_pruning_compose(trim_first: bool):
    model = network()

    def trim(net: nn.Module) -> tuple[nn.Module, Plan]:
        return pj.trim(net, X, evaluate=lambda m: float(m(X).detach().square().sum()), drop=1)[:2]

    def prune(net: nn.Module) -> tuple[nn.Module, Plan]:
        return pj.prune(net, X, ratio=0.5)

    steps = (trim, prune) if trim_first else (prune, trim)
    once, first = steps[0](model)
    twice, second = steps[1](once)
    composed = first.then(second)
    assert same(pj.apply(model, composed), twice)
    assert pj.verify(model, twice, composed, X).passed
    assert same(pj.apply(once, composed.since(first, second.fingerprint)), twice)
    with pytest.raises(PlanError, match="begins with"):
        composed.since(second, second.fingerprint)
    (block,) = composed.dropped
    for name, parameter in model.get_submodule(block).named_parameters():
        assert composed.removed[f"{block}.{name}"][0] == tuple(range(parameter.shape[0]))


def test_attributes_compose():
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = 8
            self.qk, self.v, self.o = nn.Linear(6, 32), nn.Linear(6, 32), nn.Linear(32, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, _ = x.shape
            qk, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.qk, self.v))
            return self.o(((qk @ qk.mT).softmax(-1) @ v).transpose(1, 2).reshape(b, n, -1))

    model, x = Heads(), torch.randn(2, 3, 6)
    once, first = pj.prune(model, x, ratio=0.5)
    twice, second = pj.prune(once, x, ratio=0.5)
    assert (model.heads, once.heads, twice.heads) == (8, 4, 2)
    composed = first.then(second)
    again = pj.apply(model, composed)
    assert again.heads == 2
    assert same(again, twice)
    assert pj.verify(model, twice, composed, x).passed
