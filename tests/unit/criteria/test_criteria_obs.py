"""The optimal brain surgeon's order and errors against brute force."""

import numpy as np
import pytest
import torch
from torch import nn

import penjing as pj
from penjing.core import UsageError
from penjing.criteria import Context, _obs, prepare_criterion, remarks_in
from penjing.criteria._obs import RIDGE, Reader, cumulative


def reader(seed: int, outputs: int, units: int, width: int = 1) -> Reader:
    rng = np.random.default_rng(seed)
    d = units * width
    phi = rng.normal(size=(200, d)) @ rng.normal(size=(d, d))
    order = torch.arange(d).reshape(width, units).T.contiguous()  # a unit's columns lie apart
    return Reader(torch.tensor(rng.normal(size=(outputs, d))), torch.tensor(np.cov(phi.T, bias=True)), order)


def least_error(one: Reader, gone: list[int]) -> float:
    """min over the weights that stay of tr((W - W') H (W - W')^T) / 2, by solving for them afresh."""
    weight, cov = one.weight.numpy(), one.covariance.numpy()
    h = cov + RIDGE * np.trace(cov) / len(cov) * np.eye(len(cov))
    lost = one.columns[gone].flatten().numpy()
    stay = np.setdiff1d(np.arange(len(cov)), lost)
    left = weight[:, lost]
    schur = h[np.ix_(lost, lost)]
    if len(stay):
        schur = schur - h[np.ix_(lost, stay)] @ np.linalg.solve(h[np.ix_(stay, stay)], h[np.ix_(stay, lost)])
    return float(np.trace(left @ schur @ left.T)) / 2


@pytest.mark.parametrize("width", [1, 3])
def test_scores_are_the_least_errors_of_a_greedy_search(width: int) -> None:
    readers = [reader(seed, outputs, 6, width) for seed, outputs in ((0, 4), (1, 3))]
    scores, gone = cumulative(readers, 6), []
    while len(gone) < 6:
        errors = {u: sum(least_error(r, [*gone, u]) for r in readers) for u in range(6) if u not in gone}
        best = min(errors, key=errors.__getitem__)
        gone.append(best)
        assert np.isclose(scores[best], errors[best], rtol=1e-8)  # float64, downdated six times
    assert np.argsort(scores).tolist() == gone


def test_many_units_at_a_time_are_as_good_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = [reader(0, 8, 160)]
    fast = np.sort(cumulative(readers, 160))
    monkeypatch.setattr(_obs, "SHARE", 1000)
    slow = np.sort(cumulative(readers, 160))
    assert np.abs(fast / slow - 1)[20:].max() < 0.05
    assert np.isclose(fast[-1], slow[-1])


def test_equal_units_do_not_go_together() -> None:
    one = reader(0, 8, 128)
    twins = torch.arange(128) // 2 * 2
    cov = one.covariance[twins][:, twins]
    scores = cumulative([Reader(one.weight, cov, one.columns)], 128)
    first = np.argsort(scores)[:56]
    assert len(set((first // 2).tolist())) == 56


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(),
                         nn.Linear(80, 4)).eval()  # fmt: skip


def scores(net: nn.Module, batches: list[torch.Tensor], **options: object) -> dict[str, np.ndarray]:
    score = prepare_criterion("obs", net, Context(calibration=batches, **options))  # type: ignore[arg-type]
    return {g.name: score(g, net) for g in pj.trace(net, batches[0]).groups}


@torch.no_grad()
def test_what_others_can_replace_goes_first() -> None:
    net = network()
    net[0].weight[4], net[0].bias[4] = 2 * net[0].weight[1], 2 * net[0].bias[1]
    net[0].weight[2], net[0].bias[2] = 0, 3.0  # constant: the bias takes it
    with torch.enable_grad():
        found = scores(net, [torch.randn(16, 3, 6, 6) for _ in range(4)])["0.weight:0"]
    first = np.argsort(found)[:2]
    assert 2 in first
    assert {1, 4} & set(first.tolist())
    assert found.max() > 100 * np.sort(found)[1]


class Odd(nn.Module):
    """Units read by a convolution in groups and by a transposed one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.g = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2)
        self.up, self.head = nn.ConvTranspose2d(8, 6, 2, stride=2), nn.Conv2d(6, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.up(torch.relu(self.g(torch.relu(self.a(x)))))
        return self.head(torch.relu(x)).mean((2, 3))


def test_convolutions_in_groups_count_and_what_does_not_is_said() -> None:
    torch.manual_seed(0)
    net, batches = Odd().eval(), [torch.randn(8, 3, 5, 5) for _ in range(3)]
    with torch.no_grad():
        net.a.weight[2::4] *= 10  # channels 2 and 6, which are large,
        net.g.weight[:, 2] = 0  # but neither group reads
    found = next(s for n, s in scores(net, batches).items() if n.startswith("a."))
    assert found[2] == 0
    assert (np.delete(found, 2) > 0).all()
    _, plan = pj.prune(net, batches[0], ratio=0.5, criterion="obs", calibration=batches)
    said = ("criterion obs does not count what these weights make of units: up.weight",)
    assert remarks_in(plan.policies) == said
    batches = [torch.randn(8, 3, 6, 6)]
    _, plan = pj.prune(network(), batches[0], ratio=0.5, criterion="obs", calibration=batches)
    assert remarks_in(plan.policies) == ()


def test_the_network_is_left_as_it_was() -> None:
    net = network().train()
    net[0].weight.requires_grad_(False)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    scores(net, [torch.randn(4, 3, 6, 6)])
    assert net.training
    assert not net[0].weight.requires_grad
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_bad_input_is_named() -> None:
    net = network()
    with pytest.raises(UsageError, match="needs calibration"):
        prepare_criterion("obs", net, Context())
    with pytest.raises(UsageError, match="no batch"):
        prepare_criterion("obs", net, Context(calibration=[]))
    with pytest.raises(UsageError, match="NaN"):
        prepare_criterion("obs", net, Context(calibration=[torch.full((2, 3, 6, 6), float("nan"))]))


class Waves(nn.Module):
    """The same convolutions over one axis, or over two of which the first has one place."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = (3, 3) if kind is nn.Conv1d else ((1, 3), (1, 3))
        self.a, self.b, self.head = kind(2, 8, sizes[0]), kind(8, 6, sizes[1]), nn.Linear(6, 3)
        self.two = kind is nn.Conv2d

    def forward(self, x):
        x = self.b(self.a(x.unsqueeze(2) if self.two else x).relu()).relu()
        return self.head(x.flatten(2).mean(2))


def scored(model: nn.Module, batches: list, name: str) -> np.ndarray:
    seen = {}

    def keep(group, model):
        seen[group.name] = score(group, model)
        return seen[group.name]

    score = prepare_criterion("obs", model, Context(calibration=batches))
    pj.prune(model, batches[0], ratio=0.25, criterion=keep)
    return seen[name]


def test_convolutions_over_one_axis_count_as_those_over_two() -> None:
    batches = [torch.randn(6, 2, 12) for _ in range(3)]
    one, two = Waves(nn.Conv1d).eval(), Waves(nn.Conv2d).eval()
    two.load_state_dict({n: t.unsqueeze(2) if t.dim() == 3 else t for n, t in one.state_dict().items()})
    a, b = (scored(model, batches, "a.weight:0") for model in (one, two))
    assert np.allclose(a, b, rtol=1e-4)
    assert a.min() > 0


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_weights_count(kind: type[nn.Module]) -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells, self.head = kind(4, 6, 2, batch_first=True), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.cells(x)[0].mean(1))

    seen = _obs._gather(Net().eval(), [torch.randn(4, 5, 4)], 0)
    met = {name for (name, _), one in seen.met.items() if one.energy is not None}
    weights = {f"cells.weight_{side}_l{layer}" for side in ("ih", "hh") for layer in (0, 1)}
    assert weights | {"head.weight"} == met


def test_every_output_counts() -> None:
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)

        def forward(self, x):
            h = self.body(x).relu()
            return self.first(h), self.second(h)

    torch.manual_seed(0)
    net = Two().eval()
    with torch.no_grad():
        net.first.weight[:, 4:] = 0
        net.second.weight[:, :4] = 0
    scores = scored(net, [torch.randn(64, 4) for _ in range(2)], "body.weight:0")
    steps = np.diff(np.sort(scores), prepend=0)
    assert (steps > 1e-6).sum() >= 7


@pytest.mark.parametrize("last", [nn.Flatten(0), nn.Identity()])
def test_single_numbers_as_outputs(last: nn.Module) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1), last).eval()
    scores = scored(net, [torch.randn(16, 4)], "0.weight:0")
    assert np.isfinite(scores).all()
    assert scores.min() > 0


class Factors(nn.Module):
    """A product with factors, the same with none, and one whose weight stands for many."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.first = way, nn.Linear(5, 8)
        self.weight, self.bias = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.randn(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        if self.way == "alpha":
            return torch.addmm(self.bias, h, self.weight, alpha=3.0, beta=0.5)
        if self.way == "many":
            return torch.bmm(h.view(2, -1, 8), self.weight.expand(2, -1, -1)).flatten(0, 1)
        return torch.addmm(self.bias, h, self.weight)


def test_factors_of_products_count() -> None:
    scores, data = [], [torch.randn(64, 5, dtype=torch.float64) for _ in range(3)]
    for way in ("alpha", "plain"):
        torch.manual_seed(0)
        net = Factors(way).double().eval()
        if way == "plain":
            with torch.no_grad():
                net.weight *= 3
                net.bias *= 0.5
        score = prepare_criterion("obs", net, Context(calibration=data, loss=None, seed=0))
        group = next(g for g in pj.trace(net, data[0]).groups if len(g) == 8)
        scores.append(score(group, net))
    assert np.allclose(*scores)


def test_a_weight_that_stands_for_many_is_said() -> None:
    seen = _obs._gather(Factors("many").eval(), [torch.randn(64, 5)], 0)
    assert seen.remarks() == ("does not count what these weights make of units: weight",)
