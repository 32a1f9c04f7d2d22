"""The contract of `prune`: how much stays, what is protected, budgets, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core import VerificationError
from penjing.core._groups import PruneGroup
from penjing.search import DEFAULT_GRANULARITY, Levers
from penjing.search._select import Rounding

EXAMPLE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def network(width: int = 16) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def params(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("n", [1, 2, 5, 16, 64, 100])
@pytest.mark.parametrize("ratio", [0.01, 0.3, 0.5, 0.75, 0.99])
@pytest.mark.parametrize(("min_kept", "round_to"), [(1, 1), (1, 8), (4, 1), (3, 16)])
def test_how_many_units_stay(n: int, ratio: float, min_kept: int, round_to: int):
    rounding = Rounding(min_kept=min_kept, round_to=round_to)
    expected = min(n, max(min_kept, round_to * math.floor(n * (1 - ratio) / round_to + 0.5)))
    for granularity in ("channel", "neuron", "embed", "hidden"):
        assert rounding.kept(n, ratio, granularity) == expected
    for granularity in ("head", "kv_head", "expert", "head_dim", "group"):
        assert rounding.kept(n, ratio, granularity) == min(
            n, max(min_kept, math.floor(n * (1 - ratio) + 0.5))
        )


@pytest.mark.parametrize(("options", "widths"), [
    ({"ratio": 0.5}, (8, 16, 16)), ({"ratio": 0.3}, (11, 22, 22)), ({"ratio": 0.9, "min_kept": 5}, (5, 5, 5)),
    ({"ratio": 0.3, "round_to": 8}, (8, 24, 24)), ({"ratio": {"3": 0.25}}, (16, 24, 32)),
    ({"ratio": {"[03]": 0.5}}, (8, 16, 32)), ({"ratio": {"3": 0.75, "*": 0.5}}, (8, 8, 16)),
    ({"ratio": 0.5, "protect": ("3",)}, (8, 32, 16)), ({"ratio": 0.5, "protect": ("3.weight",)}, (16, 32, 16)),
    ({"ratio": 0.5, "protect": ("0*",)}, (16, 16, 16)),
])  # fmt: skip
def test_widths(options: dict[str, Any], widths: tuple[int, int, int]):
    slim, plan = pj.prune(network(), EXAMPLE, **options)
    if options.get("protect") == ("3",):
        widths = (16, 32, 16)  # both dims of the protected convolution stay
    assert (slim[0].out_channels, slim[3].out_channels, slim[5].out_channels) == widths
    assert pj.verify(network(), slim, plan, EXAMPLE).passed


@pytest.mark.parametrize(("options", "message"), [
    ({}, "exactly one"), ({"ratio": 0.5, "budget": "macs<=0.5x"}, "exactly one"),
    ({"ratio": 0.0}, r"inside \(0, 1\)"), ({"ratio": 1.0}, r"inside \(0, 1\)"), ({"ratio": -1}, r"inside \(0, 1\)"),
    ({"ratio": True}, r"inside \(0, 1\)"), ({"ratio": float("nan")}, r"inside \(0, 1\)"),
    ({"ratio": "half"}, r"inside \(0, 1\)"), ({"ratio": {"0": 2.0}}, r"inside \(0, 1\)"),
    ({"ratio": {"nope": 0.5}}, "nope"), ({"ratio": 0.5, "protect": ("nope",)}, "nope"),
    ({"ratio": 0.5, "criterion": "l3"}, "did you mean"), ({"ratio": 0.5, "criterion": "taylor"}, "calibration"),
    ({"ratio": 0.5, "scope": "galactic"}, "uniform, global"), ({"ratio": 0.5, "granularity": ("chanel",)}, "channel"),
    ({"ratio": 0.5, "min_kept": 0}, "at least 1"), ({"ratio": 0.5, "round_to": 0}, "at least 1"),
    ({"budget": "sizes<=0.5x"}, "size"), ({"budget": "mac<=0.5x"}, "macs"),
])  # fmt: skip
def test_arguments_that_cannot_work(options: dict[str, Any], message: str):
    with pytest.raises(pj.UsageError, match=message):
        pj.prune(network(), EXAMPLE, **options)


@pytest.mark.parametrize("example", [None, 3, "x", [], {}, (), {"x": 3}, [None]], ids=repr)
def test_example_inputs_of_a_wrong_kind(example: Any):
    with pytest.raises(pj.UsageError):
        pj.prune(network(), example, ratio=0.5)


def test_nothing_to_prune_says_why():
    with pytest.raises(pj.VerificationError, match="contract with the caller"):
        pj.prune(nn.Linear(3, 4), torch.randn(1, 3), ratio=0.5)
    with pytest.raises(pj.VerificationError, match="raise the ratio"):
        pj.prune(network(4), EXAMPLE, ratio=0.01)


def test_a_callable_criterion_decides():
    seen = []

    def last_first(group: PruneGroup, model: nn.Module) -> list[float]:
        seen.append(group.name)
        return [-float(i) for i in range(len(group))]

    _, plan = pj.prune(network(), EXAMPLE, ratio=0.5, criterion=last_first)
    assert seen == ["0.weight:0", "3.weight:0", "5.weight:0"]
    assert plan.removed["0.weight"][0] == tuple(range(8, 16))


def test_the_weakest_go():
    model = network()
    with torch.no_grad():
        model[0].weight[3:11] *= 1e-4
        model[0].bias[3:11] = 0
        model[1].weight[3:11] = 1e-4
        model[3].weight[:, 3:11] *= 1e-4
    for criterion in ("l1", "l2"):
        _, plan = pj.prune(model, EXAMPLE, ratio=0.5, criterion=criterion)
        assert plan.removed["1.running_var"] == {0: tuple(range(3, 11))}


def test_exact_only_leaves_renormalised_groups():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(2, 6)
    assert {g.fidelity for g in pj.trace(model, x).groups} == {"renormalized", "exact"}
    slim, _ = pj.prune(model, x, ratio=0.5, exact_only=True)
    assert (slim[0].out_features, slim[2].out_features) == (8, 6)
    slim, _ = pj.prune(model, x, ratio=0.5)
    assert (slim[0].out_features, slim[1].normalized_shape, slim[2].out_features) == (4, (4,), 6)


class Attention(nn.Module):
    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.qkv, self.out = nn.Linear(6, 3 * heads * width), nn.Linear(heads * width, 6)
        self.scale = width**-0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out((((q @ k.transpose(-1, -2)) * self.scale).softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("granularity", "expected"), [
    (("head",), (2, 4)), (("head_dim",), (4, 2)), (("head", "head_dim"), (2, 2)), (("channel", "head"), (2, 4)),
])  # fmt: skip
def test_granularity_tells_heads_from_head_dims_of_equal_number(
    granularity: tuple[str, ...], expected: tuple[int, int]
):
    model, x = Attention(4, 4), torch.randn(2, 5, 6)
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=granularity)
    assert (slim.heads, slim.width) == expected
    assert slim.out.in_features == expected[0] * expected[1]
    assert pj.verify(model, slim, plan, x).passed


def test_global_scope_moves_units_and_keeps_a_tenth():
    torch.manual_seed(0)
    model = nn.Sequential(*[layer for _ in range(4) for layer in (nn.Linear(20, 20, bias=False), nn.ReLU())])
    with torch.no_grad():
        model[0].weight *= 1e-3
        model[0].weight[0] *= 1e3
    x = torch.randn(2, 20)

    def score(group: PruneGroup, model: nn.Module) -> list[float]:
        first = group.name[0] == "0"
        return [model[0].weight[i].norm().item() if first else 1.0 + i for i in range(20)]

    slim, plan = pj.prune(model, x, ratio=0.5, scope="global", criterion=score)
    widths = [m.out_features for m in slim if isinstance(m, nn.Linear)]
    assert sum(widths[:3]) == pytest.approx(30, abs=2)
    assert min(widths) >= 2
    assert widths[0] < 10
    assert pj.verify(model, slim, plan, x).passed


def test_global_scope_ranks_among_groups_that_are_alike():
    """Convolutions over time and over pictures own as many slices along the same dims, and are not compared."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat = nn.Sequential(nn.Conv2d(1, 10, 3), nn.ReLU(), nn.Conv2d(10, 4, 1))
            self.timed = nn.Sequential(nn.Conv1d(1, 10, 3), nn.ReLU(), nn.Conv1d(10, 4, 1))

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.flat(x).mean((2, 3)), self.timed(y).mean(2)

    def score(group: PruneGroup, model: nn.Module) -> list[float]:  # one even, one with a few that stand out
        return (
            [1.0 + 0.01 * i for i in range(10)]
            if "flat" in group.name
            else [1e-3 * i for i in range(9)] + [9.0]
        )

    slim, _ = pj.prune(
        Two(), (torch.randn(1, 1, 6, 6), torch.randn(1, 1, 6)), ratio=0.5, scope="global", criterion=score
    )
    assert (slim.flat[0].out_channels, slim.timed[0].out_channels) == (5, 5)


@pytest.mark.parametrize("scope", ["uniform", "global"])
@pytest.mark.parametrize("budget", ["macs<=0.5x", "params<=0.3x", "macs<=0.6x,params<=0.5x", "params<=8k"])
def test_budgets_are_met_and_used(budget: str, scope: str):
    model = network()
    slim, plan = pj.prune(model, EXAMPLE, budget=budget, scope=scope)
    full, small = pj.measure(model, EXAMPLE, latency=False), pj.measure(slim, EXAMPLE, latency=False)
    used = []
    for limit in pj.Budget.parse(budget).limits:
        reached = getattr(small, limit.metric)
        allowed = limit.absolute(getattr(full, limit.metric))
        assert reached <= allowed
        used.append(reached / allowed)
    assert max(used) >= 0.95
    assert pj.verify(model, slim, plan, EXAMPLE).passed


def test_an_impossible_budget_names_the_nearest():
    model = network()
    with pytest.raises(
        pj.BudgetError, match=r"nearest.*Fix: raise the budget, or lower min_kept \(4\)$"
    ) as caught:
        pj.prune(model, EXAMPLE, budget="params<=0.001x", min_kept=4)
    assert caught.value.metric == "params"
    smallest, _ = pj.prune(model, EXAMPLE, ratio=0.99, min_kept=4)
    assert caught.value.nearest == params(smallest)
    slim, _ = pj.prune(model, EXAMPLE, budget=f"params<={params(smallest)}", min_kept=4)
    assert params(slim) == params(smallest)


def test_only_options_that_are_in_the_way_are_named():
    free = Levers(scope="uniform", granularity=DEFAULT_GRANULARITY, protect=(), round_to=1)
    assert free.told() == "Fix: raise the budget"
    tight = Levers(
        scope="global",
        granularity=("channel",),
        protect=("head.*", "stem"),
        round_to=8,
        min_kept=2,
        exact_only=True,
    )
    said = tight.told(lambda name: f"steps.prune.{name}")
    ways = (
        "min_kept (2)",
        "round_to (8)",
        "protect (head.*, stem)",
        "granularity (now without neuron, head,",
    )
    assert all(f"steps.prune.{way}" in said for way in (*ways, "scope to uniform", "exact_only"))


def test_a_budget_that_already_holds_is_no_reason_to_cut():
    model, example = network(), EXAMPLE
    slim, plan = pj.prune(model, example, budget="macs<=1x")
    assert plan.edits == ()
    assert slim is not model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), slim.parameters(), strict=True))


def test_alternatives_freeze_for_all():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor, early: bool = False) -> torch.Tensor:
            h = F.relu(self.a(x))
            return h if early else self.c(F.relu(self.b(h)))

    model, x = Two(), torch.randn(3, 4)
    slim, _ = pj.prune(model, x, ratio=0.5)
    assert (slim.a.out_features, slim.b.out_features) == (4, 3)
    slim, plan = pj.prune(model, [x, (x, True)], ratio=0.5)
    assert (slim.a.out_features, slim.b.out_features) == (8, 3)
    assert pj.verify(model, slim, plan, [{"x": x, "early": True}, x]).passed


def test_lengths_differ_between_alternatives():
    model, short = Attention(4, 4), torch.randn(2, 5, 6)
    slim, plan = pj.prune(model, [short, torch.randn(1, 9, 6)], ratio=0.5)
    assert pj.verify(model, slim, plan, [torch.randn(3, 2, 6), short]).passed


def test_the_result_is_a_pure_function_of_the_arguments():
    one, two = (pj.prune(network(), EXAMPLE, ratio=0.4, criterion="random", seed=7)[1] for _ in range(2))
    assert one == two
    assert pj.prune(network(), EXAMPLE, ratio=0.4, criterion="random", seed=8)[1].removed != one.removed


def test_every_index_is_owned_or_frozen_with_a_cause():
    model = network()
    structure = pj.trace(model, EXAMPLE)
    owned: dict[tuple[str, int], set[int]] = {}
    for group in structure.groups:
        for unit in range(len(group)):
            for piece in group.slices(unit):
                place = owned.setdefault((piece.name, piece.dim), set())
                assert not place & set(piece.indices)
                place.update(piece.indices)
    frozen = {(f.parameter, f.dim): f.count for f in structure.frozen}
    assert all(f.cause for f in structure.frozen)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        for dim, size in enumerate(tensor.shape):
            assert len(owned.get((name, dim), ())) + frozen.get((name, dim), 0) == size, (name, dim)
    assert np.all([len(g.units) == len(g) for g in structure.groups])


def test_a_ratio_by_path_whose_only_group_fails_says_why():
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = torch.nn.Linear(4, 16), torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.c(self.b(x)) + y.exp().sum(1, keepdim=True) / y.shape[1]

    with pytest.raises(VerificationError, match=r"no group could be removed and proven: a\.weight:0"):
        pj.prune(Scaled(), torch.randn(2, 4), ratio={"a*": 0.5})
