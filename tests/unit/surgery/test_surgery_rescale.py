"""Constants that code computes from a size keep their original value: factors fold into weights."""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj
from penjing.core._edits import ScaleTensor

WIDTH, HEADS, TOKENS = 32, 4, 6
X = torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
Weights = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def heads(x: torch.Tensor, count: int = HEADS) -> torch.Tensor:
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


class Attention(nn.Module):
    """Self-attention; `weights` says how scores become weights, `turn` what happens to queries and keys before."""

    def __init__(self, weights: Weights, turn: Callable[[torch.Tensor], torch.Tensor] = lambda t: t) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weights, self.turn = weights, turn
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = self.turn(heads(self.q(x))), self.turn(heads(self.k(x)))
        out = self.weights(q, k) @ heads(self.v(x))
        return self.o(out.transpose(1, 2).flatten(2))


def by_power(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


def by_root(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.mT / math.sqrt(q.size(-1))).softmax(-1)


def by_count(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.mT / q.shape[-1]).softmax(-1)


def by_tensor(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.mT / torch.sqrt(torch.tensor(q.size(-1), dtype=torch.float))).softmax(-1)


def by_full(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return (q @ k.mT / torch.full([], q.size(-1) ** 0.5, dtype=q.dtype, device=q.device)).softmax(-1)


def on_queries(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1)


def on_both(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    scale = q.shape[-1] ** -0.25
    return ((q * scale) @ (k * scale).mT).softmax(-1)


def in_place(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    scores = q @ k.mT
    scores /= math.sqrt(q.size(-1))
    return scores.softmax(-1)


def fused_product(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    b, h, n, d = q.shape
    start = torch.zeros(b * h, n, n, dtype=q.dtype, device=q.device)
    scores = torch.baddbmm(start, q.flatten(0, 1), k.flatten(0, 1).mT, beta=0, alpha=d**-0.5)
    return scores.view(b, h, n, n).softmax(-1)


def stock(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, torch.eye(k.shape[2], dtype=q.dtype, device=q.device))


def queries_read_twice(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """The scaled queries feed a gate too: only the keys are free to carry the factor."""
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) * q.tanh().sum(-1, keepdim=True)


SCALES = {
    f.__name__: f
    for f in (by_power, by_root, by_count, by_tensor, by_full, on_queries, on_both, in_place, fused_product, stock,
              queries_read_twice)
}  # fmt: skip


def rotated(t: torch.Tensor) -> torch.Tensor:
    half = t.shape[-1] // 2
    angles = torch.arange(t.shape[2])[:, None] * 0.3
    turned = torch.cat([-t[..., half:], t[..., :half]], -1)
    return t * angles.cos() + turned * angles.sin()


def check(model: nn.Module, *, expected: int, granularity: str = "head_dim", x: torch.Tensor = X) -> Any:
    model = model.eval()
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=(granularity,))
    assert not plan.skipped
    assert any(isinstance(e, ScaleTensor) for e in plan.edits)
    assert any(p.startswith("rescaled") for p in plan.policies)
    proof = pj.verify(model, slim, plan, x)
    assert proof.passed, proof.cause
    again = pj.apply(model, pj.Plan.from_json(plan.to_json()))
    for name, tensor in slim.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert slim.get_parameter("q.weight").shape[0] == expected
    return slim, plan


@pytest.mark.parametrize("weights", SCALES.values(), ids=SCALES)
def test_every_kind_of_scale(weights: Weights):
    model = Attention(weights).eval()
    slim, plan = check(model, expected=WIDTH // 2)
    torch.testing.assert_close(slim(X), masked_twin(model, plan)(X), rtol=0, atol=1e-5)  # float32 rounding


def masked_twin(model: Attention, plan: pj.Plan) -> Attention:
    """The original with the removed rows of queries, keys and values set to zero: its own scale, its own code."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in twin.named_parameters():
            if name[0] in "qkv":
                tensor[list(plan.removed[name][0])] = 0
    return twin


@pytest.mark.parametrize("weights", [by_root, on_queries, stock])
def test_rotary_positions(weights: Weights):
    check(Attention(weights, rotated), expected=WIDTH // 2)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("weights", [by_root, stock])
def test_normalised_queries_and_keys_carry_the_factor_in_the_norm(
    norm: Callable[[int], nn.Module], weights: Weights
):
    class Normed(Attention):
        def __init__(self) -> None:
            super().__init__(weights)
            self.norm_q, self.norm_k = norm(WIDTH // HEADS), norm(WIDTH // HEADS)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k = self.norm_q(heads(self.q(x))), self.norm_k(heads(self.k(x)))
            return self.o((self.weights(q, k) @ heads(self.v(x))).transpose(1, 2).flatten(2))

    model = Normed().eval()
    slim, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    scaled = {e.name for e in plan.edits if isinstance(e, ScaleTensor)}
    assert scaled
    assert all(name.startswith("norm_") for name in scaled)
    assert pj.verify(model, slim, plan, X).passed


def test_a_norm_written_by_hand():
    class Normed(Attention):
        def __init__(self) -> None:
            super().__init__(by_root)
            self.gain = nn.Parameter(torch.rand(WIDTH // HEADS) + 0.5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k = heads(self.q(x)), heads(self.k(x))
            q = self.gain * (q * (q.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt())
            return self.o((self.weights(q, k) @ heads(self.v(x))).transpose(1, 2).flatten(2))

    model = Normed().eval()
    slim, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    assert {e.name for e in plan.edits if isinstance(e, ScaleTensor)} == {"gain"}
    assert pj.verify(model, slim, plan, X).passed


def test_a_fused_projection_scales_its_query_rows_alone():
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, _ = x.shape
            q, k, v = self.qkv(x).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            return self.o((by_root(q, k) @ v).transpose(1, 2).flatten(2))

    model = Fused().eval()
    slim, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    scales = [e for e in plan.edits if isinstance(e, ScaleTensor)]
    assert {(e.name, e.indices) for e in scales} == {
        ("qkv.weight", tuple(range(WIDTH))), ("qkv.bias", tuple(range(WIDTH))),
    }  # fmt: skip
    assert scales[0].factor == pytest.approx(0.5**0.5)
    assert pj.verify(model, slim, plan, X).passed


def test_layers_that_share_weights_share_the_factor():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Attention(by_root)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = x + self.layer(x)
            return x

    model = Shared().eval()
    slim, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    assert {e.name for e in plan.edits if isinstance(e, ScaleTensor)} == {"layer.q.weight", "layer.q.bias"}
    assert pj.verify(model, slim, plan, X).passed


def test_fewer_key_heads_than_query_heads():
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.k, self.v = nn.Linear(WIDTH, WIDTH // 2), nn.Linear(WIDTH, WIDTH // 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q = rotated(heads(self.q(x)))
            k, v = rotated(heads(self.k(x), HEADS // 2)), heads(self.v(x), HEADS // 2)
            b, h, n, d = k.shape
            k, v = (t[:, :, None].expand(b, h, 2, n, d).reshape(b, 2 * h, n, d) for t in (k, v))
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    check(Grouped(), expected=WIDTH // 2)


def test_single_headed_attention_over_pixels():
    class Pixels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Conv2d(8, 8, 1) for _ in range(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (f(x).flatten(2) for f in (self.q, self.k, self.v))
            weights = (q.mT @ k * q.shape[1] ** -0.5).softmax(-1)
            return self.o((v @ weights.mT).unflatten(2, x.shape[2:]))

    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    check(Pixels(), expected=4, granularity="channel", x=x)


class Dividing(nn.Module):
    """A division by a channel count between two layers."""

    def __init__(self, read_again: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.b = nn.Linear(WIDTH, 16), nn.Linear(16, 3)
        self.read_again = read_again

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.q(x))
        out = self.b(hidden / hidden.shape[-1])
        return out + hidden.tanh().sum(-1, keepdim=True) if self.read_again else out


@pytest.mark.parametrize("read_again", [False, True])
def test_a_division_by_a_width_moves_into_the_layer_before_or_behind(read_again: bool):
    model = Dividing(read_again).eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    names = {e.name for e in plan.edits if isinstance(e, ScaleTensor)}
    assert names == ({"b.weight"} if read_again else {"b.weight"} | names)
    assert slim.q.out_features == 8
    assert pj.verify(model, slim, plan, X).passed


class Stuck(nn.Module):
    """The scaled value is squashed at once, and made by nothing that a factor could go into."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(WIDTH, 16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.a(x).tanh()
        return self.b((hidden / hidden.shape[-1]).sigmoid())


def test_where_no_weight_can_carry_the_factor_the_group_is_skipped():
    model = nn.Sequential(Stuck(), nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert [s.group for s in plan.skipped] == ["0.a.weight:0"]
    assert "no weight" in plan.skipped[0].cause
    assert slim[1].out_features == 4
    assert pj.verify(model, slim, plan, X).passed


def test_half_precision_weights_carry_the_factor_in_their_own_dtype():
    model = Attention(stock).to(torch.bfloat16).eval()
    slim, plan = pj.prune(model, X.bfloat16(), ratio=0.5, granularity=("head_dim",))
    assert {p.dtype for p in slim.parameters()} == {torch.bfloat16}
    assert pj.verify(model, slim, plan, X.bfloat16()).passed


def test_pruning_twice_composes_the_factors():
    model = Attention(by_root).eval()
    once, first = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    twice, second = pj.prune(once, X, ratio=0.5, granularity=("head_dim",))
    composed = pj.Plan.from_json(first.then(second).to_json())
    again = pj.apply(model, composed)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in twice.state_dict().items())
    proof = pj.verify(model, twice, composed, X)
    assert proof.passed, proof.cause


def without(plan: pj.Plan) -> pj.Plan:
    return dataclasses.replace(plan, edits=tuple(e for e in plan.edits if not isinstance(e, ScaleTensor)))


def doubled(plan: pj.Plan) -> pj.Plan:
    return dataclasses.replace(
        plan,
        edits=tuple(
            dataclasses.replace(e, factor=2 * e.factor) if isinstance(e, ScaleTensor) else e
            for e in plan.edits
        ),
    )


def elsewhere(plan: pj.Plan) -> pj.Plan:
    extra = ScaleTensor(name="v.weight", dim=0, indices=None, factor=2.0)
    return dataclasses.replace(plan, edits=(*plan.edits, extra))


@pytest.mark.parametrize("change", [without, doubled, elsewhere])
def test_other_factors_than_the_constants_ask_for_are_refused(change: Callable[[pj.Plan], pj.Plan]):
    model = Attention(by_root).eval()
    _, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    changed = change(plan)
    proof = pj.verify(model, pj.apply(model, changed), changed, X)
    assert not proof.passed
    assert "constant" in proof.cause


@pytest.mark.parametrize(
    "edit",
    [
        ScaleTensor(name="nope", dim=0, indices=None, factor=2.0),
        ScaleTensor(name="q.weight", dim=5, indices=None, factor=2.0),
        ScaleTensor(name="q.weight", dim=0, indices=(0, WIDTH), factor=2.0),
    ],
)
def test_a_scaling_that_cannot_fit_is_refused(edit: ScaleTensor):
    model = Attention(by_root).eval()
    _, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    with pytest.raises(pj.PlanError):
        pj.apply(model, dataclasses.replace(plan, edits=(*plan.edits, edit)))


def test_queries_that_are_the_keys_cannot_carry_the_factor_alone():
    model = Attention(on_queries).eval()
    model.k = model.q
    with pytest.raises(pj.VerificationError, match="no weight"):
        pj.prune(model, X, ratio=0.5, granularity=("head_dim",), protect=("v",))


def test_a_bias_that_only_queries_have_carries_the_whole_factor():
    """Keys have a fixed bias of zero beside the queries' own: the part of the factor they cannot take goes to q."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH)
            self.q_bias, self.v_bias = nn.Parameter(torch.rand(WIDTH)), nn.Parameter(torch.rand(WIDTH))
            self.register_buffer("k_bias", torch.zeros(WIDTH))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            b, n, _ = x.shape
            bias = torch.cat([self.q_bias, self.k_bias, self.v_bias])
            q, k, v = F.linear(x, self.qkv.weight, bias).view(b, n, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            return self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    model = nn.Sequential(*(Biased() for _ in range(3))).eval()
    slim, plan = pj.prune(model, X, ratio=0.5, granularity=("head_dim",))
    scales = [e for e in plan.edits if isinstance(e, ScaleTensor)]
    assert {e.name.split(".", 1)[1] for e in scales} == {"qkv.weight", "q_bias"}
    assert all(e.factor == pytest.approx(0.5**0.5) for e in scales)
    assert pj.verify(model, slim, plan, X).passed
