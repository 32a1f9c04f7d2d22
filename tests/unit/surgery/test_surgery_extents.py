"""A heavy network is compared on fewer places, and only where it does there what it does in full."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.structure import trace_forward
from penjing.surgery import _extents
from penjing.surgery._extents import _changes_alike, _shrunk
from penjing.surgery._places import on_fewer_places
from penjing.surgery._precision import SINGLE, PromotedCasts

X = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
FULL, FEWER = ((tuple(X.shape),),), (((2, 3, 32, 32),),)


@pytest.fixture(autouse=True)
def _everything_is_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extents, "WORTH", 0)
    monkeypatch.setattr(_extents, "HEAVY", 0)
    monkeypatch.setattr(_extents, "PER_CALL", 0)


class Net(nn.Module):
    """Convolutions, a grouped one among them, and a head; `twist` is what a case does between."""

    def __init__(self, twist: Callable[["Net", torch.Tensor], torch.Tensor] = lambda net, x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.twist = twist
        self.bend = 0
        self.a, self.n = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.d = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.b = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twist(self, self.d(F.relu(self.n(self.a(x)))))
        return self.head(F.relu(self.b(x)).mean((2, 3)))


def proof(model: nn.Module, x: torch.Tensor = X) -> pj.Verification:
    slim, plan = pj.prune(model.eval(), x, ratio=0.5)
    found = pj.verify(model, slim, plan, x)
    assert found.passed, found.cause
    assert not plan.skipped
    return found


def test_fewer_places_are_said():
    found = proof(Net())
    assert found.shapes == FEWER
    assert found.max_error <= 1e-9
    assert found.precision == "float64"


def test_a_light_network_runs_in_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_extents, "WORTH", 10**12)
    assert proof(Net()).shapes == FULL


def expanded(net: Net, x: torch.Tensor) -> torch.Tensor:
    """The size of what is written out over all places is frozen, and no group's."""
    return x * x.mean((2, 3), keepdim=True).sigmoid().expand_as(x)


def attending(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Attention between rows, fused where nobody asks for its operators."""
    rows = x.permute(0, 2, 3, 1)
    return F.scaled_dot_product_attention(rows, rows, rows, scale=0.25).permute(0, 3, 1, 2)


@pytest.mark.parametrize("twist", [expanded, attending])
def test_code_that_follows_the_extent_is_compared_on_fewer_places(
    twist: Callable[[Net, torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_extents, "HEAVY", 10**12)  # no trace there: read off what ran
    assert proof(Net(twist)).shapes == FEWER


def flattened(net: Net, x: torch.Tensor) -> torch.Tensor:
    """A literal size of the picture is part of the code."""
    return x.view(x.shape[0], -1, 64 * 64).unflatten(2, (64, 64))


def by_extent(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Other code for small pictures."""
    return x * 1.5 if x.shape[2] > 40 else x.relu()


def with_table(net: Net, x: torch.Tensor) -> torch.Tensor:
    if not hasattr(net, "table"):
        net.table = nn.Parameter(torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)))
    return x + net.table


def asserting(net: Net, x: torch.Tensor) -> torch.Tensor:
    assert x.shape[2] == 64, "this picture has another size"
    return x


@pytest.mark.parametrize("twist", [flattened, by_extent, with_table, asserting])
def test_code_that_asks_for_the_extent_is_compared_in_full(
    twist: Callable[[Net, torch.Tensor], torch.Tensor],
):
    model = Net(twist)
    if twist is with_table:
        model(X)
    assert proof(model).shapes == FULL


def test_places_never_collapse_to_one():
    """Five halvings leave two pixels of 64 and one of 32: an instance norm over one pixel shows nothing."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            layers = [nn.Conv2d(4 if i else 3, 4, 3, stride=2, padding=1) for i in range(5)]
            self.body, self.head = nn.Sequential(*layers), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(F.instance_norm(self.body(x)))

    assert proof(Deep()).shapes == FULL


def rolled_by_channels(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Nothing is rolled on small pictures; in full, by a number that pruning changes."""
    return x.roll(x.shape[1] if x.shape[2] > 40 else 0, 3)


def test_an_integer_that_pruning_changes_in_full_alone_is_found_in_full():
    slim, plan = pj.prune(Net(rolled_by_channels).eval(), X, ratio=0.5)
    assert [s.group for s in plan.skipped] == ["a.weight:0"]
    assert "outputs differ" in plan.skipped[0].cause
    assert (slim.a.out_channels, slim.b.out_channels) == (8, 4)


def tampered(net: Net, x: torch.Tensor) -> torch.Tensor:
    return x.roll(net.bend, 2) if x.shape[2] > 40 else x.roll(0, 2)


def test_a_slim_network_that_differs_in_full_alone_is_refused():
    model = Net(tampered).eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert isinstance(slim, Net)
    slim.bend = 3
    assert not pj.verify(model, slim, plan, X).passed


def test_wrong_channels_are_found_on_fewer_places():
    model = Net().eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    forward = slim.head.forward
    slim.head.forward = lambda x: forward(x.flip(1))
    found = pj.verify(model, slim, plan, X)
    assert not found.passed


@pytest.mark.parametrize(
    ("shape", "fewer"),
    [
        ((8, 3, 224, 224), (2, 3, 64, 64)),
        ((1, 3, 32, 32), None),
        ((2, 3, 30, 50), (2, 3, 8, 13)),
        ((1, 1, 16, 64, 64), (1, 1, 4, 32, 32)),
        ((1, 16000), (1, 4000)),
        ((1, 80, 200), None),
        ((1, 197, 768), None),
    ],
)
def test_what_counts_as_places(shape: tuple[int, ...], fewer: tuple[int, ...] | None):
    found = _shrunk(torch.zeros(shape), 4)
    assert (None if found is None else tuple(found.shape)) == fewer


@pytest.mark.parametrize(
    ("full", "fewer", "alike"),
    [
        (([8, 64], [4, 64]), ([8, 32], [4, 32]), True),  # groups 8 -> 4, places 64 and 32
        (([8, 64], [4, 64]), ([8, 32], [8, 32]), False),
        (([8, 64], [8, 60]), ([8, 32], [8, 32]), False),
        (([8], [8]), ([8], [4]), False),
        (([4, 4], [4]), ([4, 4], [4]), True),  # a piece less to split into
        (([4, 4], [4]), ([4, 4], [2]), False),
    ],
)
def test_integers_change_alike(
    full: tuple[list[int], list[int]], fewer: tuple[list[int], list[int]], alike: bool
):
    assert _changes_alike(full, fewer) is alike


def test_integer_inputs_are_cut_by_example_alone():
    found = _shrunk({"ids": torch.zeros(4, 9, dtype=torch.long), "x": torch.zeros(4, 3, 64, 64)}, 4)
    assert found is not None
    assert found["ids"].shape == (2, 9)
    assert found["x"].shape == (2, 3, 32, 32)


def test_shapes_of_every_example_are_said():
    model = Net().eval()
    inputs = [X, X[:, :, :, :32]]
    slim, plan = pj.prune(model, inputs, ratio=0.5)
    found = pj.verify(model, slim, plan, inputs)
    assert found.passed
    assert found.shapes == (((2, 3, 32, 32),), ((2, 3, 32, 32),))
    assert dataclasses.replace(found, shapes=()).passed


def over_places(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Integers of the code that the places decide: rows of a linear layer, a width in a factor."""
    return F.linear(x.permute(0, 2, 3, 1), torch.eye(8)).permute(0, 3, 1, 2) * x.shape[3]


@pytest.mark.parametrize("twist", [lambda net, x: x, over_places])
def test_the_graph_read_off_a_run_is_that_of_a_trace(twist: Callable[[Net, torch.Tensor], torch.Tensor]):
    model = Net(twist).eval()
    few = X[:2, :, :32, :32]
    full, ran = trace_forward(model, X), PromotedCasts(SINGLE, recorded=True)
    with torch.no_grad(), ran:
        model(few)
    found, traced = on_fewer_places(full, full, ran.ran, {}), trace_forward(model, few)
    assert found is not None
    pairs = zip(found.graph.calls, traced.graph.calls, strict=True)
    assert all((a.op, a.args, a.kwargs) == (b.op, b.args, b.kwargs) for a, b in pairs)
    read = {v for call in traced.graph.calls for v in call.inputs} - set(traced.graph.inputs)
    assert all(a == b for a, b in zip(found.graph.values, traced.graph.values, strict=True) if a.id in read)


@pytest.mark.parametrize("change", ["op", "integer", "labelled size", "one place"])
def test_a_run_that_differs_gives_no_graph(change: str):
    model, few = Net().eval(), X[:2, :, :32, :32]
    full, mode = trace_forward(model, X), PromotedCasts(SINGLE, recorded=True)
    with torch.no_grad(), mode:
        model(few)
    ran, labelled = list(mode.ran), {}
    last = next(i for i, run in enumerate(ran) if run.op is torch.ops.aten.mean.dim)
    if change == "op":
        ran[last] = dataclasses.replace(ran[last], op=torch.ops.aten.sum.dim_IntList)
    elif change == "integer":  # pruning changes it in full, and the place changes it too
        retraced = trace_forward(model, X)
        call = retraced.graph.calls[last]
        call = call._replace(args=(call.args[0], [1, 3]))
        calls = (*retraced.graph.calls[:last], call, *retraced.graph.calls[last + 1 :])
        cut = dataclasses.replace(retraced, graph=dataclasses.replace(retraced.graph, calls=calls))
        assert on_fewer_places(full, cut, ran, labelled) is None
        return
    elif change == "labelled size":
        labelled = {full.graph.calls[last].outputs[0]: (True, True)}
    else:
        ran[last] = dataclasses.replace(ran[last], shapes=[(1, 8)])
    assert on_fewer_places(full, full, mode.ran, {}) is not None
    assert on_fewer_places(full, full, ran, labelled) is None
