"""`verify` has to fail when anything is wrong, and to leave both networks alone."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core._edits import DropBlock, Removal, RemoveUnits, SetAttribute


class Net(nn.Module):
    """Two convolutions around a shuffle of `groups`, a residual and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 2
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.a(x)))
        n, c, h, w = x.shape
        x = x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(F.relu(x + self.b(x)).mean((2, 3)))


EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def pruned() -> tuple[Net, Net, pj.Plan]:
    torch.manual_seed(0)
    model = Net().eval()
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    assert isinstance(slim, Net)
    return model, slim, plan


def refused(model: nn.Module, slim: nn.Module, plan: pj.Plan) -> str:
    proof = pj.verify(model, slim, plan, EXAMPLE)
    assert not proof.passed
    assert proof.cause
    return proof.cause


def test_an_honest_result_passes():
    model, slim, plan = pruned()
    proof = pj.verify(model, slim, plan, EXAMPLE)
    assert proof.passed
    assert proof.max_error <= 1e-9
    assert set(proof.checked) == {e.group for e in plan.edits if isinstance(e, RemoveUnits)}


def swap_channels(slim: Net) -> None:
    slim.a.weight[[0, 1]] = slim.a.weight[[1, 0]].clone()


def change_one_weight(slim: Net) -> None:
    slim.head.weight[0, 0] += 1e-3


def change_one_statistic(slim: Net) -> None:
    slim.bn.running_mean[0] += 1


def retrain(slim: Net) -> None:
    slim.b.weight.mul_(1.01)


def lose_a_weight(slim: Net) -> None:
    slim.head.bias = None


@pytest.mark.parametrize(
    "tamper", [swap_channels, change_one_weight, change_one_statistic, retrain, lose_a_weight]
)
def test_changed_weights_are_refused(tamper: Callable[[Net], None]):
    model, slim, plan = pruned()
    with torch.no_grad():
        tamper(slim)
    refused(model, slim, plan)


def one_group(slim: Net) -> None:
    slim.groups = 1


def other_epsilon(slim: Net) -> None:
    slim.bn.eps = 0.5


def other_padding(slim: Net) -> None:
    slim.b.padding_mode = "circular"
    slim.b._reversed_padding_repeated_twice = [1, 1, 1, 1]


def other_activation(slim: Net) -> None:
    slim.bn = nn.Sequential(slim.bn, nn.Tanh())  # type: ignore[assignment]


@pytest.mark.parametrize("tamper", [one_group, other_epsilon, other_padding, other_activation])
def test_changed_code_or_constants_are_refused(tamper: Callable[[Net], None]):
    model, slim, plan = pruned()
    tamper(slim)
    refused(model, slim, plan)


def test_a_permutation_that_weights_alone_cannot_show():
    """The same slices, read in another order by the code: only running the networks shows it."""
    model, slim, plan = pruned()
    forward = slim.head.forward
    slim.head.forward = lambda x: forward(x.flip(1))  # type: ignore[method-assign]
    refused(model, slim, plan)


def with_edit(plan: pj.Plan, change: Callable[[RemoveUnits], RemoveUnits]) -> pj.Plan:
    edits = [change(e) if isinstance(e, RemoveUnits) else e for e in plan.edits]
    return dataclasses.replace(plan, edits=tuple(edits))


def test_half_a_unit_is_refused():
    model, _, plan = pruned()

    def forget_one(edit: RemoveUnits) -> RemoveUnits:
        return dataclasses.replace(edit, removals=edit.removals[1:])

    def one_index_less(edit: RemoveUnits) -> RemoveUnits:
        first = edit.removals[0]
        return dataclasses.replace(
            edit, removals=(dataclasses.replace(first, indices=first.indices[1:]), *edit.removals[1:])
        )

    for change in (forget_one, one_index_less):
        changed = with_edit(plan, change)
        cause = refused(model, pj.apply(model, changed), changed)
        assert "without its whole unit" in cause


def test_a_frozen_index_is_refused():
    model, _, plan = pruned()
    extra = RemoveUnits(
        group="x",
        granularity="channel",
        units=(0,),
        removals=(Removal(name="head.weight", dim=0, indices=(1,)),),
    )
    changed = dataclasses.replace(plan, edits=(*plan.edits, extra))
    assert "head.weight" in refused(model, pj.apply(model, changed), changed)


def test_another_networks_plan_shows_both_fingerprints():
    model, slim, plan = pruned()
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    _, others = pj.prune(other, EXAMPLE, ratio=0.5)
    cause = refused(model, slim, others)
    assert others.fingerprint[:12] in cause
    assert plan.fingerprint[:12] in cause
    with pytest.raises(pj.PlanError, match=plan.fingerprint[:12]):
        pj.apply(other, plan)
    with pytest.raises(pj.PlanError, match="before any change"):
        pj.apply(slim, plan)


def test_the_original_against_the_plan_is_refused():
    model, _, plan = pruned()
    refused(model, copy.deepcopy(model), plan)


@pytest.mark.parametrize(
    "edit",
    [
        RemoveUnits(
            group="g", granularity="c", units=(0,), removals=(Removal(name="nope", dim=0, indices=(0,)),)
        ),
        RemoveUnits(
            group="g", granularity="c", units=(0,), removals=(Removal(name="a.weight", dim=9, indices=(0,)),)
        ),
        RemoveUnits(
            group="g", granularity="c", units=(0,), removals=(Removal(name="a.weight", dim=0, indices=(8,)),)
        ),
        RemoveUnits(
            group="g",
            granularity="c",
            units=(0,),
            removals=(Removal(name="a.weight", dim=1, indices=(0, 1, 2)),),
        ),
        SetAttribute(module="", attribute="training", value=3),
        SetAttribute(module="", attribute="forward", value=3),
        SetAttribute(module="", attribute="__class__", value=3),
        SetAttribute(module="nope", attribute="groups", value=3),
        SetAttribute(module="a", attribute="stride", path=(7,), value=3),
        DropBlock(module="nope", tensors=()),
        DropBlock(module="../../etc", tensors=(("../../etc/passwd", 1),)),
    ],
    ids=str,
)
def test_a_plan_that_cannot_fit_is_refused(edit: RemoveUnits | SetAttribute | DropBlock):
    model, _, plan = pruned()
    with pytest.raises(pj.PlanError):
        pj.apply(model, dataclasses.replace(plan, edits=(edit,)))


def test_a_block_that_is_none_cannot_be_dropped_unseen():
    """Dropping a module that changes shapes replays, but is not proven."""
    model, _, plan = pruned()
    tensors = tuple((f"head.{n}", p.shape[0]) for n, p in model.head.named_parameters())
    dropped = dataclasses.replace(plan, edits=(DropBlock(module="head", tensors=tensors),))
    assert pj.apply(model, dropped).head.__class__ is nn.Identity
    assert not pj.verify(model, pruned()[1], dropped, EXAMPLE).passed


def test_vacuous_proofs_are_not_passed_for_zero_initialised_heads():
    """With a zero head every output is zero: wrong channels must be found all the same."""
    model = Net().eval()
    with torch.no_grad():
        model.head.weight.zero_()
        model.bn.weight.zero_()
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    assert pj.verify(model, slim, plan, EXAMPLE).passed
    slim.groups = 1
    refused(model, slim, plan)


class Rolled(nn.Module):
    """Numbers that no shape and no op name shows: only running both networks does."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = 1
        self.tint = torch.tensor([0.5, 1.0, 2.0])
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(F.relu(self.a(x)).roll(self.shift, 3)) * self.tint[:, None, None]


def rolled_further(slim: Rolled) -> None:
    slim.shift = 2


def other_tint(slim: Rolled) -> None:
    slim.tint = torch.tensor([0.5, 1.0, 2.00001])


@pytest.mark.parametrize("tamper", [rolled_further, other_tint])
def test_a_difference_that_only_the_outputs_show(tamper: Callable[[Rolled], None]):
    model = Rolled().eval()
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    assert isinstance(slim, Rolled)
    assert pj.verify(model, slim, plan, EXAMPLE).passed
    tamper(slim)
    assert "outputs differ" in refused(model, slim, plan)


class Lone(nn.Module):
    """Two heads of which one stays: code that asks whether a dim is 1 lays its operands out in another way."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = 2
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1) for f in (self.q, self.k, self.v))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return self.o(torch.einsum("bhqk,bkhd->bqhd", scores, v).flatten(2))


def test_axes_of_size_one_may_be_laid_out_in_another_way():
    model, x = Lone().eval(), torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=("head",))
    assert slim.heads == 1
    assert not plan.skipped
    assert pj.verify(model, slim, plan, x).passed


class Scores(nn.Module):
    """Returns attention scores with the future masked out, or nothing but infinities."""

    def __init__(self, everything: bool) -> None:
        super().__init__()
        self.q, self.k, self.everything = nn.Linear(6, 8), nn.Linear(6, 8), everything

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.q(x) @ self.k(x).transpose(1, 2)
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return scores.masked_fill(future | self.everything, float("-inf"))


def test_infinities_that_both_hold_are_equal_and_outputs_without_numbers_prove_nothing():
    x = torch.randn(2, 4, 6)
    model = Scores(everything=False).eval()
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert slim.q.out_features == 4
    assert pj.verify(model, slim, plan, x).passed
    with pytest.raises(pj.VerificationError, match="infinity"):
        pj.prune(Scores(everything=True).eval(), x, ratio=0.5)
