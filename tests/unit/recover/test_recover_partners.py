"""Reconstruction of networks written in odd ways against twins written plainly."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import penjing as pj
from penjing.core import Plan
from penjing.recover import reconstruct
from penjing.recover._refitted import Reconstruction


def batches(*shape: int, count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


def refitted(net: nn.Module, data: list[Tensor], ratio: Any) -> tuple[nn.Module, Reconstruction]:
    """The first units of the groups asked for are kept."""

    def score(group: Any, model: nn.Module) -> Tensor:
        return -torch.arange(len(group), dtype=torch.float64)

    slim, plan = pj.prune(net, data[0], ratio=ratio, criterion=score)
    return slim, reconstruct(net, slim, plan, data)


class Written(nn.Module):
    """Two blocks on a stream, each way of writing them with a plain twin."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.stem = way, nn.Conv2d(3, 4, 1)
        self.ups = nn.ModuleList(nn.Conv2d(4, 10, 1) for _ in range(2))
        self.downs = nn.ModuleList(nn.Conv2d(10, 8 if "half" in way else 4, 1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, down, norm in zip(self.ups, self.downs, self.norms, strict=True):
            x = self.joined(x, down(torch.relu(up(x))), norm)
        return self.last(x)

    def joined(self, x: Tensor, y: Tensor, norm: nn.Module) -> Tensor:
        if "half" in self.way:
            a, b = y.chunk(2, 1) if self.way == "half a view" else (t.clone() for t in y.chunk(2, 1))
            return x + a + b.sigmoid()
        if self.way == "relu":
            return x + torch.relu(norm(y))
        if self.way == "relu in place":
            return x + torch.relu_(norm(y))
        if self.way == "relu before the norm":
            return x + norm(torch.relu(y))
        if self.way == "relu in place before the norm":
            return x + norm(torch.relu_(y))
        if self.way == "stream before the norm":
            return norm(x + y)
        if self.way == "stream in place before the norm":
            y += x
            return norm(y)
        if self.way == "stream times a number":
            return 0.5 * x + norm(y)
        if self.way == "alpha":
            return torch.add(norm(y), x, alpha=0.5)
        assert self.way == "alpha in place"
        return norm(y).add_(x, alpha=0.5)


TWINS = [
    ("half a view", "half"),
    ("relu in place", "relu"),
    ("relu in place before the norm", "relu before the norm"),
    ("stream in place before the norm", "stream before the norm"),
    ("alpha", "stream times a number"),
    ("alpha in place", "stream times a number"),
]


@pytest.mark.parametrize("size", [1, 16])
@pytest.mark.parametrize(("odd", "plain"), TWINS)
def test_ways_of_writing_a_stream_give_the_same_weights(odd: str, plain: str, size: int) -> None:
    data, found = batches(size, 3, 4, 4), []
    for way in (odd, plain):
        torch.manual_seed(0)
        net = Written(way).double().eval()
        slim, told = refitted(net, data, {"ups.*.weight": 0.5})
        assert all(layer.after <= layer.before for layer in told.layers)
        found.append(slim.state_dict())
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-8) for name in found[1])


class Scaled(nn.Module):
    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.first = way, nn.Linear(5, 12)
        self.weight, self.bias = nn.Parameter(torch.randn(12, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        if self.way == "addmm":
            return torch.addmm(self.bias, h, self.weight, alpha=3.0, beta=0.5)
        if self.way == "baddbmm":
            bias, weight = self.bias.view(1, 1, -1), self.weight[None]
            return torch.baddbmm(bias, h[None], weight, alpha=3.0, beta=0.5)[0]
        if self.way == "left":
            return torch.addmm(self.bias[:, None], self.weight.T, h.T, alpha=3.0, beta=0.5).T
        return torch.addmm(self.bias, h, self.weight)


@pytest.mark.parametrize("way", ["addmm", "baddbmm", "left"])
@torch.no_grad()
def test_factors_of_a_product_and_its_bias_count(way: str) -> None:
    data, outputs = batches(32, 5), []
    for each in (way, "plain"):
        torch.manual_seed(0)
        net = Scaled(each).double().eval()
        if each == "plain":
            net.weight *= 3
            net.bias *= 0.5
        with torch.enable_grad():
            slim, told = refitted(net, data, {"first.weight": 0.5})
        assert told.layers[-1].after < 0.5 * told.layers[-1].before
        outputs.append(slim(data[0]))
    assert torch.allclose(*outputs, atol=1e-8)


class Stream(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused, self.first, self.up = fused, nn.Linear(5, 6), nn.Linear(6, 12)
        self.a, self.b = (nn.Parameter(torch.randn(12, 6)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for weight in (self.a, self.b):
            h = torch.relu(self.up(x))
            x = torch.addmm(x, h, weight) if self.fused else x + h @ weight
        return x


def test_a_stream_that_a_product_is_added_to_at_once_is_no_bias() -> None:
    data, found = batches(32, 5), []
    for fused in (True, False):
        torch.manual_seed(0)
        slim, _ = refitted(Stream(fused).double().eval(), data, {"up.weight": 0.5})
        found.append(slim)
    assert torch.allclose(found[0].a, found[1].a, atol=1e-8)
    assert torch.allclose(found[0].b, found[1].b, atol=1e-8)


class Biased(nn.Module):
    """A bias of two weights, one that is computed, and one of positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(5, 6, bias=False), nn.Linear(6, 6)
        self.d = nn.Linear(6, 6, bias=False)
        self.gain, self.place = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.randn(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x)) - torch.relu(F.linear(x, self.b.weight, self.a.bias))
        x = torch.relu(F.linear(x, self.c.weight, self.gain * self.c.bias))
        return torch.addmm(self.place, x, self.d.weight.T)


def test_what_is_added_but_is_no_bias_of_its_own_is_not_fitted_twice() -> None:
    torch.manual_seed(0)
    net, data = Biased().double().eval(), batches(6, 5)
    same = copy.deepcopy(net)
    found = reconstruct(net, same, Plan(edits=(), fingerprint=pj.trace(net, data[0]).fingerprint), data)
    assert [layer.name for layer in found.layers if layer.cause] == ["place"]
    assert len(found.layers) == 5
    assert all(layer.before == layer.after < 1e-20 for layer in found.layers)
    assert all(torch.equal(t, same.state_dict()[name]) for name, t in net.state_dict().items())


class Apart(nn.Module):
    """Parts of one weight: rows that lie apart, columns that do not, and one that stands for many."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 12), nn.Linear(6, 6)
        self.rows, self.bias = nn.Parameter(torch.randn(18, 12)), nn.Parameter(torch.randn(18))
        self.columns, self.many = nn.Parameter(torch.randn(6, 12)), nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        a, b, c = (F.linear(h, w, v) for w, v in zip(self.rows.chunk(3), self.bias.chunk(3), strict=True))
        x = torch.tanh(a) * torch.sigmoid(b) + c
        x = F.linear(x, self.columns[:, :6]) + F.linear(torch.tanh(x), self.columns[:, 6:])
        x = torch.bmm(self.many.expand(2, -1, -1), torch.relu(x).view(2, 6, -1)).reshape(x.shape)
        return self.last(torch.relu(x))


def test_parts_of_a_weight_are_refitted_each() -> None:
    torch.manual_seed(0)
    slim, found = refitted(Apart().double().eval(), batches(16, 5), {"first.weight": 0.5})
    layers = {layer.name: layer for layer in found.layers}
    assert slim.rows.shape == (18, 6)
    assert all(
        0 < layers[f"rows, part {n} of 3"].after < layers[f"rows, part {n} of 3"].before for n in (1, 2, 3)
    )
    assert {n: layer.cause for n, layer in layers.items() if layer.cause} == {
        "columns": "several operators read parts of it",
        "many": "what reads it is not refitted: bmm",
    }


class Attending(nn.Module):
    """PyTorch's attention, or the same by hand."""

    def __init__(self, by_hand: bool, batch_first: bool) -> None:
        super().__init__()
        self.first, self.wide, self.narrow = nn.Linear(5, 12), nn.Linear(12, 16), nn.Linear(16, 12)
        self.attend = nn.MultiheadAttention(12, 3, batch_first=batch_first)
        nn.init.normal_(self.attend.in_proj_bias)
        self.by_hand, self.flip = by_hand, not batch_first
        if by_hand:
            names = ("query", "key", "value")
            parts = (self.attend.in_proj_weight.chunk(3), self.attend.in_proj_bias.chunk(3))
            for name, weight, bias in zip(names, *parts, strict=True):
                layer = nn.Linear(12, 12)
                layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
                setattr(self, name, layer)
            self.out = self.attend.out_proj
            del self.attend

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.narrow(torch.relu(self.wide(x)))
        if not self.by_hand:
            turned = x.transpose(0, 1) if self.flip else x
            y = self.attend(turned, turned, turned, need_weights=False)[0]
            return y.transpose(0, 1) if self.flip else y
        q, k, v = (f(x).unflatten(-1, (-1, 4)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("batch_first", [True, False])
@torch.no_grad()
def test_attention_with_fewer_heads_is_refitted_as_by_hand(batch_first: bool) -> None:
    data, outputs, left = batches(8, 7, 5), [], []
    for by_hand, weight in ((True, "query.weight"), (False, "attend.in_proj_weight")):
        torch.manual_seed(0)
        net = Attending(by_hand, batch_first).double().eval()
        with torch.enable_grad():
            slim, told = refitted(net, data, {weight: 0.34, "wide.weight": 0.5})
        left.append([layer.cause for layer in told.layers if layer.cause])
        outputs.append(slim(data[0]))
        out = next(layer for layer in told.layers if layer.name.endswith(("out.weight", "out_proj.weight")))
        assert slim.get_parameter(out.name).shape == (12, 8)
        assert out.after < 0.9
        assert sum(0 < layer.after < layer.before for layer in told.layers) == 5
    assert left == [[], []]
    assert torch.allclose(*outputs, atol=1e-7)


class Routed(nn.Module):
    """Experts that see the rows sent to them; some are not run at all for nobody."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.up, self.down, self.route = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, 3)
        self.experts, self.last = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 4)
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(torch.relu(self.up(x)))
        y, way = torch.zeros_like(x), self.route(x).argmax(-1)
        for number, expert in enumerate(self.experts):
            at = (way == number).nonzero()[:, 0]
            if len(at) or self.always:
                y[at] = expert(x[at])
        return self.last(torch.relu(y))


@pytest.mark.parametrize(
    ("always", "cause"), [(True, "numbers of positions"), (False, "depends on the data")]
)
@pytest.mark.parametrize("size", [1, 2, 64])
def test_rows_that_are_sent_another_way_are_not_matched(always: bool, cause: str, size: int) -> None:
    torch.manual_seed(0)
    net = Routed(always).double().eval()
    _, found = refitted(net, batches(size, 8, count=12), {"up.weight": 0.75})
    weights = {name for name, p in net.named_parameters() if p.dim() > 1}
    assert {layer.name for layer in found.layers} == weights
    assert all(layer.after <= layer.before for layer in found.layers)
    assert size < 64 or any(cause in layer.cause for layer in found.layers)
