"""Networks that insist on their extent are compared on fewer places of both graphs, and every error shows there."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.structure import trace_forward
from penjing.surgery import _exact, _extents, _thinning
from penjing.surgery._exact import Subject, _Run, exactness
from penjing.surgery._precision import DOUBLE
from penjing.surgery._thinning_rules import Refused, reshaped
from penjing.surgery._verify import _removed_units

X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PLACES = 64


@pytest.fixture(autouse=True)
def _everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_extents, "THIN", 0)
    monkeypatch.setattr(_extents, "THIN_PER_CALL", 0)
    monkeypatch.setattr(_thinning, "LATE", 1)


class Transformer(nn.Module):
    """A class token, a position table, attention with a table of biases, and a picture of one size only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.scale = 4, 0.5
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.positions = nn.Parameter(torch.randn(1, PLACES + 1, 16))
        self.biases = nn.Parameter(torch.randn(4, PLACES + 1, PLACES + 1))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)
        self.n, self.m = nn.LayerNorm(16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 5)
        for p in (p for p in self.parameters() if p.dim() == 1):
            nn.init.normal_(p, 1, 0.5)

    def attended(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2) * self.scale + self.biases).softmax(-1)
        return self.out((scores @ v).transpose(1, 2).flatten(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32), "this picture has another size"
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token, x], 1) + self.positions
        x = x + self.attended(self.n(x))
        x = x + self.down(F.gelu(self.up(self.m(x))))
        return self.head(x[:, 0]) + self.head(x[:, 1:].mean(1))


class Mixer(nn.Module):
    """Tokens are mixed by weights of their own, with a hidden width that shrinks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 12, 4, stride=4)
        self.n = nn.LayerNorm(12)
        self.mix, self.unmix = nn.Linear(PLACES, 10), nn.Linear(10, PLACES)
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        y = self.unmix(self.mix(self.n(x).transpose(1, 2)).relu())
        return self.head((x + y.transpose(1, 2)).mean(1))


def subject(model: nn.Module, change: Callable[[nn.Module], object] = lambda slim: None) -> Subject:
    """What is compared after a change of the smaller network, which its re-trace sees."""
    slim, plan = pj.prune(model.eval(), X, ratio=0.5)
    structure = pj.trace(model, X)
    gone = structure.gone(_removed_units(structure, plan.removed, set()))
    with torch.no_grad():
        change(slim)
    return Subject(model, slim, structure, plan, gone, [trace_forward(slim, X)])


def on_few(of: Subject) -> float:
    return _Run(of, DOUBLE)._thinned(0, X)


@pytest.mark.parametrize("model", [Transformer(), Mixer()], ids=lambda m: type(m).__name__)
def test_a_network_of_one_extent_is_compared_on_few_places(model: nn.Module):
    slim, plan = pj.prune(model.eval(), X, ratio=0.5)
    found = pj.verify(model, slim, plan, X)
    assert found.passed, found.cause
    assert found.thinned
    assert found.max_error <= 1e-12
    assert not plan.skipped
    kept = {n: p.shape for n, p in slim.named_parameters()}
    if isinstance(model, Transformer):
        assert kept["qkv.weight"] == (24, 8)
        assert kept["positions"] == (1, PLACES + 1, 8)
        assert kept["biases"] == (2, PLACES + 1, PLACES + 1)
    else:
        assert (kept["mix.weight"], kept["patches.weight"]) == ((5, PLACES), (6, 3, 4, 4))


def test_a_light_network_runs_in_full(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_extents, "THIN", 10**12)
    model = Transformer().eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    found = pj.verify(model, slim, plan, X)
    assert found.passed
    assert not found.thinned


def swapped_heads(slim: nn.Module) -> None:
    """Both heads of the queries change places, those of keys and values do not."""
    assert isinstance(slim, Transformer)
    slim.qkv.weight[:8] = slim.qkv.weight[:8].roll(4, 0)
    slim.qkv.bias[:8] = slim.qkv.bias[:8].roll(4, 0)


def other_scale(slim: nn.Module) -> None:
    slim.scale = 0.5 + 1e-6  # type: ignore[assignment]


def wrong_index(name: str, dim: int) -> Callable[[nn.Module], None]:
    def change(slim: nn.Module) -> None:
        tensor = slim.get_parameter(name)
        tensor.copy_(tensor.roll(1, dim))

    return change


def one_number(name: str) -> Callable[[nn.Module], None]:
    """A single number, of a place that no other computation reads."""

    def change(slim: nn.Module) -> None:
        tensor = slim.get_parameter(name)
        tensor.view(-1)[tensor.numel() // 2 + 3] += 1e-3

    return change


FAULTS = {
    "head order": (Transformer, swapped_heads),
    "constant": (Transformer, other_scale),
    "index of queries": (Transformer, wrong_index("qkv.weight", 0)),
    "index of what is read": (Transformer, wrong_index("qkv.weight", 1)),
    "index of hidden neurons": (Transformer, wrong_index("down.weight", 1)),
    "index of a norm": (Transformer, wrong_index("n.weight", 0)),
    "index of the head": (Transformer, wrong_index("head.weight", 1)),
    "index of the token": (Transformer, wrong_index("token", 2)),
    "channels of a table": (Transformer, wrong_index("positions", 2)),
    "heads of a table": (Transformer, wrong_index("biases", 0)),
    "a row of a table": (Transformer, one_number("positions")),
    "a bias of two places": (Transformer, one_number("biases")),
    "index of mixed tokens": (Mixer, wrong_index("mix.weight", 0)),
    "index of what is unmixed": (Mixer, wrong_index("unmix.weight", 1)),
    "a weight of one place": (Mixer, one_number("mix.weight")),
    "channels before tokens": (Mixer, wrong_index("patches.weight", 0)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_show_on_few_places(fault: str):
    make, change = FAULTS[fault]
    assert on_few(subject(make())) <= 1e-12
    assert on_few(subject(make(), change)) > DOUBLE.tolerance
    found = exactness(subject(make(), change), X)
    assert found.error > DOUBLE.tolerance
    assert not found.thinned


class Marked(nn.Module):
    """The first place is overwritten in the convolution's own memory."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(8))
        self.up, self.head = nn.Linear(8, 12), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        x = self.patches(x)
        x[:, :, 0, 0] = self.token
        return self.head(self.up(x.flatten(2).transpose(1, 2)).relu().mean(1))


class Seen(Marked):
    """A table is added to the convolution's result through a view of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        x = self.patches(x)
        x.flatten(2).add_(self.token[:, None])
        return self.head(self.up(x.flatten(2).transpose(1, 2)).relu().mean(1))


class Dilated(Marked):
    """A convolution whose outer taps lie further away than the places that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv1d(8, 8, 3, padding=16, dilation=16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        x = self.wide(self.patches(x).flatten(2)).transpose(1, 2)
        return self.head(self.up(x + self.token).relu().mean(1))


class Near(Marked):
    """Every other head attends to neighbours alone, none of which stay."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        places = torch.arange(PLACES)
        far = (places[:, None] - places).abs() > 1
        self.register_buffer("far", torch.stack([far, torch.zeros_like(far)] * 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        x = self.patches(x).flatten(2).transpose(1, 2) + self.token
        q, k, v = (f(x).unflatten(2, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = (q @ k.transpose(-1, -2)).masked_fill(self.far, -torch.inf).softmax(-1)
        return self.head(self.up((a @ v).transpose(1, 2).flatten(2)).relu().mean(1))


class Dimmed(Near):
    """Scores of far places are multiplied by zero, and so are all that stay; not in every other head."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        x = self.patches(x).flatten(2).transpose(1, 2) + self.token
        q, k, v = (f(x).unflatten(2, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        near = (~self.far).float()
        a = (q @ k.transpose(-1, -2)) * (near - near * torch.eye(PLACES))
        return self.head(self.up((a @ v).transpose(1, 2).flatten(2)).relu().mean(1))


class Saturated(Marked):
    """Gates that are open or shut at all places that stay."""

    def __init__(self) -> None:
        super().__init__()
        self.mid = nn.Linear(8, 8)
        self.ramp = nn.Parameter(torch.linspace(-60, 60, PLACES)[:, None] ** 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        x = self.patches(x).flatten(2).transpose(1, 2) + self.token
        return self.head(self.up(x + (self.mid(x) + self.ramp).sigmoid()).relu().mean(1))


def outer_tap(slim: nn.Module) -> None:
    slim.get_parameter("wide.weight")[:, :, 0] *= 2


def near_queries(slim: nn.Module) -> None:
    slim.get_parameter("q.weight")[:2] *= -2  # of the first head alone


HIDDEN = {
    "written into memory": (Marked, wrong_index("token", 0)),
    "written through a view": (Seen, wrong_index("token", 0)),
    "outer taps": (Dilated, outer_tap),
    "queries of neighbours": (Near, near_queries),
    "queries that a factor hides": (Dimmed, near_queries),
    "gates that are shut": (Saturated, wrong_index("mid.weight", 0)),
}


@pytest.mark.parametrize("fault", HIDDEN)
def test_what_few_places_would_hide_shows(fault: str):
    make, change = HIDDEN[fault]
    model = make().eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert pj.verify(model, slim, plan, X).passed
    of = subject(make(), change)
    assert on_few(of) > DOUBLE.tolerance
    assert DOUBLE.tolerance < exactness(of, X).error < 10


def test_a_forgotten_mask_shows(monkeypatch: pytest.MonkeyPatch):
    of = subject(Transformer())
    real = _exact.masks_of

    def without_the_first(*args: object) -> object:
        found = real(*args)  # type: ignore[arg-type]
        return type(found)(dict(list(found.masks.items())[1:]), found.selections)

    monkeypatch.setattr(_exact, "masks_of", without_the_first)
    assert on_few(of) > DOUBLE.tolerance


class Odd(nn.Module):
    """Something between the tokens and a head."""

    def __init__(self, between: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.mid = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 8)
        self.between = between
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (32, 32)
        return self.head(self.between(self.mid(self.patches(x).flatten(2).transpose(1, 2))).relu().mean(1))


UNKNOWN = {
    "roll": lambda x: x.roll(3, 1),
    "sorted": lambda x: x.sort(1).values,
    "gathered": lambda x: x[:, torch.arange(40)],
    "counted": lambda x: x.cumsum(1),
    "every third": lambda x: x[:, ::3],
    "the tenth": lambda x: x[:, 9:10],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_reads_places_in_an_unknown_way_runs_in_full(name: str):
    model = Odd(UNKNOWN[name]).eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    found = pj.verify(model, slim, plan, X)
    assert found.passed, found.cause
    assert not found.thinned


LOCAL = {
    "tables and arithmetic": lambda x: x * torch.arange(PLACES).view(1, -1, 1) - x.sigmoid(),
    "views": lambda x: x.view(1, 8, 8, -1).permute(0, 2, 1, 3).flatten(1, 2).clone(),
    "joined": lambda x: torch.cat([x, x.new_ones(1, 2, x.shape[2]), x.neg()], 1)[:, 2:],
    "stacked": lambda x: torch.stack([x, x * 2], 1).select(1, 1).unsqueeze(0).squeeze(0),
    "cut": lambda x: x[:, 5:60].split(x.shape[2], 2)[0],
    "normed": lambda x: F.layer_norm(x, x.shape[2:]) + x.softmax(-1) + x.amax(-1, keepdim=True),
    "widened": lambda x: F.pad(x.expand(3, -1, -1), (1, 1)).sum(2, keepdim=True).expand(-1, -1, 4),
    "multiplied": lambda x: x.reshape(PLACES, -1) @ x.new_ones(x.shape[2], 3) @ x.new_ones(3, 5),
}


@pytest.mark.parametrize("name", LOCAL)
def test_what_does_not_mix_places_gives_the_full_result_there(name: str):
    """Running on fewer places is then the same as running in full and leaving places out."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.patches = nn.Conv2d(3, 6, 4, stride=4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return LOCAL[name](self.patches(x).flatten(2).transpose(1, 2))

    net = Net().double()
    x = X.double()
    traced = trace_forward(net, x)
    graph = traced.graph
    start = next(i for i, call in enumerate(graph.calls) if call.op is torch.ops.aten.convolution.default)
    marks = {2: (0, 3, 5, 7), 3: (0, 1, 4, 7)}
    thin = _thinning._thinned(graph, graph.calls[start].outputs[0], marks)
    tensors = {graph.states[n]: p.detach() for n, p in net.named_parameters()}
    tensors |= {graph.inputs[0]: x, **{v: DOUBLE.cast(t) for v, t in traced.constants.items()}}
    (found,) = _exact.replay(thin.graph, tensors, _exact.Masks(), graph.outputs, DOUBLE, thin)
    expected = net(x).detach()
    for dim, kept in thin.marks[graph.outputs[0]].items():
        expected = expected.index_select(dim, torch.tensor(kept))
    assert thin.marks[graph.outputs[0]]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_places_after_a_view_are_those_of_the_numbers():
    rng = np.random.default_rng(0)
    shapes = [(4, 6, 2), (24, 2), (4, 12), (2, 2, 3, 4), (8, 6), (48,), (1, 48, 1), (4, 1, 3, 4)]
    refused = 0
    for old, new in itertools.product(shapes, shapes):
        dim = int(rng.integers(len(old)))
        marks = {dim: tuple(sorted(rng.choice(old[dim], max(1, old[dim] // 2), replace=False).tolist()))}
        numbers = np.arange(48).reshape(old).take(marks[dim], dim).ravel()
        try:
            found = reshaped(marks, old, new)
        except Refused:
            refused += 1
            continue
        left = np.arange(48).reshape(new)
        for d, kept in found.items():
            left = left.take(kept, d)
        assert np.array_equal(left.ravel(), numbers)
    assert 0 < refused < len(shapes) ** 2 // 2
