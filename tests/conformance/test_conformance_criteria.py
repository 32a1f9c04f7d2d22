"""What every registered criterion promises."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core import InternalError
from penjing.criteria import CRITERIA, Context, criterion, prepare_criterion, unit_scores


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 4),
    )


BATCHES = [
    (torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(i)), torch.arange(4)) for i in range(3)
]


def loss(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
    return F.cross_entropy(outputs, batch[1])


def context(seed: int = 0) -> Context:
    return Context(calibration=BATCHES, loss=loss, seed=seed)


def scores(name: str, model: nn.Module, seed: int = 0) -> dict[str, np.ndarray]:
    structure = pj.trace(model, BATCHES[0][0])
    score = prepare_criterion(name, model, context(seed))
    return {g.name: unit_scores(score, g, model) for g in structure.groups}


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_one_finite_deterministic_score_per_unit(name: str):
    model = network()
    first, second = scores(name, model), scores(name, model)
    assert {n: len(s) for n, s in first.items()} == {"0.weight:0": 8, "3.weight:0": 6}
    for group, found in first.items():
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        assert len(set(found.tolist())) > 1, "a criterion that ranks nothing"
        np.testing.assert_array_equal(found, second[group])


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_scoring_leaves_the_network_alone(name: str):
    model = network().train()
    model[0].requires_grad_(False)
    model[3].weight.grad = torch.ones_like(model[3].weight)
    before = copy.deepcopy(model.state_dict())
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    flags, modes = [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]
    scores(name, model)
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == flags
    assert [m.training for m in model.modules()] == modes
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) == (grad is None)
        assert grad is None or torch.equal(parameter.grad, grad)


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random"}))
def test_a_dead_unit_ranks_last(name: str):
    """A unit whose weights are all zero changes nothing: no criterion may prefer to keep it."""
    model = network()
    with torch.no_grad():
        for tensor, index in (
            (model[0].weight, 5),
            (model[0].bias, 5),
            (model[1].weight, 5),
            (model[1].bias, 5),
        ):
            tensor[index] = 0
        model[3].weight[:, 5] = 0
    assert int(np.argmin(scores(name, model)["0.weight:0"])) == 5


def test_random_is_a_pure_function_of_the_seed():
    model, other = network(), network()
    nn.init.ones_(other[0].weight)
    torch.manual_seed(1)
    np.random.seed(1)
    one, two = scores("random", model, seed=3), scores("random", other, seed=3)
    for group in one:
        np.testing.assert_array_equal(one[group], two[group])
    assert not np.array_equal(one["0.weight:0"], scores("random", model, seed=4)["0.weight:0"])
    assert not np.array_equal(one["0.weight:0"][:6], one["3.weight:0"])


def test_norms_by_hand():
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, -2.0], [1.0, 1.0]]))
        model[1].weight.copy_(torch.tensor([[-4.0, 0.0, 1.0]]))
    group = pj.trace(model, torch.randn(1, 2)).group("0.weight:0")
    by = {n: unit_scores(prepare_criterion(n, model, Context()), group, model).tolist() for n in ("l1", "l2")}
    assert by["l1"] == pytest.approx([7, 2, 3])
    assert by["l2"] == pytest.approx([5, 2, 3**0.5])


def test_taylor_by_hand():
    """loss = sum of outputs, so dL/dw is known: |w dL/dw| summed over both slices of a unit."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        model[1].weight.copy_(torch.tensor([[3.0, 5.0]]))
    x = torch.ones(1, 1)
    group = pj.trace(model, x).group("0.weight:0")
    score = prepare_criterion("taylor", model, Context(calibration=[x], loss=lambda out, batch: out.sum()))
    assert unit_scores(score, group, model).tolist() == pytest.approx([2 * 2 * 3, 2 * 1 * 5])


def test_taylor_is_a_mean_over_batches():
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        model[1].weight.copy_(torch.tensor([[3.0, 5.0]]))
    batches = [
        torch.full((1, 1), size) for size in (1.0, 2.0, 6.0)
    ]  # the score of one is in proportion to its size
    group = pj.trace(model, batches[0]).group("0.weight:0")
    score = prepare_criterion(
        "taylor", model, Context(calibration=batches, loss=lambda out, batch: out.sum())
    )
    assert unit_scores(score, group, model).tolist() == pytest.approx([3 * 12, 3 * 10])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_taylor_of_half_precision_does_not_round(dtype):
    """Fifty equal batches, whose products are below the least float16: 49 + 1 would round, and each one vanish."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)).to(dtype)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0**-12], [1.5 * 2.0**-12]]))
        model[1].weight.fill_(2.0**-14)
    batches = [torch.ones(1, 1, dtype=dtype)] * 50
    group = pj.trace(model, batches[0]).group("0.weight:0")
    score = prepare_criterion(
        "taylor", model, Context(calibration=batches, loss=lambda out, batch: out.sum())
    )
    wanted = [2 * 2.0**-26, 2 * 1.5 * 2.0**-26]  # both slices, powers of two: exact
    assert unit_scores(score, group, model).tolist() == pytest.approx(wanted, rel=1e-6)


class Numbered(nn.Module):
    """Holds a parameter of whole numbers, and takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        self.order = nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.out((self.a(x) + self.b(y)).relu())


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_two_inputs_whole_numbers_and_batches_without_examples(name: str):
    torch.manual_seed(0)
    model, x, y = Numbered(), torch.randn(8, 4), torch.randn(8, 4)
    labels = torch.arange(8) % 3
    whole = [((x, y), labels), ((x[:0], y[:0]), labels[:0])]

    def told(batches: list) -> list[float]:
        structure = pj.trace(model, (x, y))
        score = prepare_criterion(name, model, Context(calibration=batches, loss=loss, structure=structure))
        return [float(v) for group in structure.groups for v in unit_scores(score, group, model)]

    assert told(whole) == told(whole[:1])
    assert told(whole) == pytest.approx(told([({"x": x, "y": y}, labels)]))


class Counting(nn.Module):
    """Counts its calls in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.out(self.b(self.a(x).relu()).relu())


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_scores_do_not_depend_on_the_callers_modes_and_leave_no_traces(name: str):
    torch.manual_seed(0)
    model, batches = Counting(), [(torch.randn(8, 4), torch.arange(8) % 3) for _ in range(2)]
    structure = pj.trace(model, batches[0][0])

    def told() -> list[float]:
        score = prepare_criterion(name, model, Context(calibration=batches, loss=loss, structure=structure))
        return [float(v) for group in structure.groups for v in unit_scores(score, group, model)]

    plain = told()
    with torch.autocast("cpu", torch.bfloat16):
        assert told() == plain
    with torch.inference_mode():
        assert told() == plain
    assert float(model.calls) == 0


def test_obs_says_that_inputs_are_no_tensors():
    with pytest.raises(pj.UsageError, match=r"calibration batch 0 are ndarray .*from_numpy"):
        prepare_criterion("obs", network(), Context(calibration=[(np.zeros((2, 8)), None)]))


@pytest.mark.parametrize("missing", [{"calibration": None}, {"loss": None}])
def test_taylor_needs_data_and_says_how_to_give_it(missing: dict[str, None]):
    given = {"calibration": BATCHES, "loss": loss, **missing}
    with pytest.raises(pj.UsageError, match=r"calibration=loader"):
        prepare_criterion("taylor", network(), Context(**given))


def test_taylor_refuses_used_up_calibration_and_broken_losses():
    with pytest.raises(pj.UsageError, match="no batch"):
        prepare_criterion("taylor", network(), Context(calibration=iter(()), loss=loss))
    with pytest.raises(pj.UsageError, match="nan"):
        prepare_criterion(
            "taylor", network(), Context(calibration=BATCHES, loss=lambda o, b: o.sum() * float("nan"))
        )


def test_unknown_duplicate_and_ill_behaved_criteria():
    model, group = network(), pj.trace(network(), BATCHES[0][0]).groups[0]
    with pytest.raises(pj.UsageError, match="did you mean 'taylor'"):
        prepare_criterion("tailor", model, Context())
    with pytest.raises(InternalError, match="two criteria"):
        criterion("l2")(lambda model, context: lambda group, model: [])
    with pytest.raises(pj.UsageError, match="3 scores for 8 units"):
        unit_scores(lambda group, model: [1.0, 2.0, 3.0], group, model)
    with pytest.raises(pj.UsageError, match="NaN"):
        unit_scores(lambda group, model: [float("nan")] * len(group), group, model)
