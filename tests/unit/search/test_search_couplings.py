"""Groups whose counts depend on each other: they shrink together, and which of their units go stays free."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import penjing as pj
from penjing.core import PlanError, VerificationError
from penjing.surgery import plan_removal


class Attention(nn.Module):
    """Attention that lays its heads out by the input's width: `reshape(B, N, C)`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        batch, places, _ = x.shape
        return self.qkv(x).reshape(batch, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, places, width = x.shape
        q, k, v = self.split(x).unbind(0)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, places, width))


class Quotient(Attention):
    """It also takes its head dims from the input's width: `C // heads`."""

    def split(self, x: torch.Tensor) -> torch.Tensor:
        batch, places, width = x.shape
        y = self.qkv(x).reshape(batch, places, 3, self.heads, width // self.heads)
        return y.permute(2, 0, 3, 1, 4)


class Window(Quotient):
    """Windows are cut out of a picture and laid back with the input's width, as Swin does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, height, breadth, width = x.shape
        x = x.view(batch, height // 2, 2, breadth // 2, 2, width)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(batch * (height // 2) * (breadth // 2), 4, width)
        y = super().forward(x).view(batch, height // 2, breadth // 2, 2, 2, width)
        return y.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, breadth, width)


class Stage(nn.Module):
    """A stream of `width` channels through residual blocks with different numbers of heads."""

    def __init__(self, block: type[Attention], width: int, heads: tuple[int, ...], norm: bool = True) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(block(width, h) for h in heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in heads)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + block(norm(x))
        return self.head(x)


def example(block: type[Attention]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, 4, 4, 5) if block is Window else (2, 4, 5), generator=generator)


CASES = [
    (Attention, 96, (3,), 0.5, 64, (2,)),
    (Attention, 96, (3,), 0.25, 96, (3,)),
    (Attention, 96, (3,), 0.7, 32, (1,)),
    (Quotient, 64, (4,), 0.5, 32, (2,)),
    (Quotient, 64, (4,), 0.25, 48, (3,)),
    (Quotient, 64, (4,), 0.7, 32, (2,)),
    (Quotient, 96, (4, 8, 4), 0.5, 48, (2, 4, 2)),
    (Quotient, 96, (4, 8, 4), 0.25, 72, (3, 6, 3)),
    (Quotient, 96, (4, 8, 4), 0.7, 48, (2, 4, 2)),
    (Attention, 96, (3, 6), 0.25, 96, (3, 6)),
    (Window, 64, (4, 8), 0.5, 32, (2, 4)),
    (Window, 64, (4, 8), 0.25, 48, (3, 6)),
    (Window, 64, (4, 8), 0.7, 32, (2, 4)),
]  # fmt: skip


@pytest.mark.parametrize(("block", "width", "heads", "ratio", "kept", "kept_heads"), CASES)
def test_heads_and_stream_shrink_to_counts_that_fit(block, width, heads, ratio, kept, kept_heads):
    model, x = Stage(block, width, heads), example(block)
    if kept == width:
        with pytest.raises(VerificationError, match="count is tied"):
            pj.prune(model, x, ratio=ratio)
        return
    slim, plan = pj.prune(model, x, ratio=ratio)
    assert slim.embed.out_features == kept
    assert tuple(b.heads for b in slim.blocks) == kept_heads
    assert not plan.skipped
    assert any(p.startswith("count-tied: ") and "heads" in p for p in plan.policies)
    assert pj.verify(model, slim, plan, x).passed


def test_which_heads_and_channels_go_is_free():
    """The removed heads of a block are not at the places of the removed channels."""
    torch.manual_seed(0)
    model, x = Stage(Quotient, 64, (4, 4)), example(Quotient)
    _, plan = pj.prune(model, x, ratio=0.5)
    channels = plan.removed["embed.weight"][0]
    heads = [plan.removed[f"blocks.{i}.proj.weight"][1] for i in range(2)]
    assert {len(channels), *map(len, heads)} == {32}
    assert len({channels, *heads}) == 3


def test_the_cut_network_is_the_masked_one():
    """Without norms, removing channels and heads equals writing zeros into the original's weights."""
    torch.manual_seed(0)
    model, x = Stage(Quotient, 32, (4,), norm=False).double(), example(Quotient).double()
    slim, plan = pj.prune(model, x, ratio=0.5)
    removed = plan.removed
    with torch.no_grad():
        for name in ("embed", "blocks.0.proj"):
            model.get_submodule(name).weight[list(removed[f"{name}.weight"][0])] = 0
            model.get_submodule(name).bias[list(removed[f"{name}.weight"][0])] = 0
        model.blocks[0].proj.weight[:, list(removed["blocks.0.proj.weight"][1])] = 0
    assert torch.allclose(slim(x), model(x), rtol=0, atol=1e-12)  # float64


def test_groups_stay_whole_where_their_partners_may_not_move():
    model, x = Stage(Quotient, 64, (4, 4)), example(Quotient)
    with pytest.raises(VerificationError, match="keep whole"):
        pj.prune(model, x, ratio=0.5, protect=["blocks.0.qkv"])
    model.blocks.append(nn.Sequential(nn.Linear(64, 80), nn.ReLU(), nn.Linear(80, 64)))
    model.norms.append(nn.Identity())
    slim, plan = pj.prune(model, x, ratio=0.5, protect=["blocks.0.qkv"])
    assert slim.embed.out_features == 64
    assert slim.blocks[2][0].out_features == 40
    assert any("keep whole" in p and "embed.weight" in p for p in plan.policies)


def test_a_single_head_shrinks_with_its_head_dims_on_request():
    model, x = Stage(Quotient, 24, (1,)), example(Quotient)
    structure = pj.trace(model, x)
    assert {len(g) for g in structure.groups} == {24}
    model.blocks.append(nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 24)))
    model.norms.append(nn.Identity())
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert pj.verify(model, slim, plan, x).passed


def test_head_dims_follow_the_stream_where_heads_may_not():
    """h is an attribute that nothing may change here: head dims = C // h."""
    model, x = Stage(Quotient, 64, (4,)), example(Quotient)
    granularity = ("channel", "neuron", "embed", "head_dim")
    slim, plan = pj.prune(model, x, ratio=0.5, granularity=granularity)
    assert slim.embed.out_features == 32
    assert slim.blocks[0].heads == 4
    assert slim.blocks[0].proj.in_features == 32
    assert pj.verify(model, slim, plan, x).passed


class Literal(Attention):
    """Four heads, written in the code, of C // 4 dims each."""

    def split(self, x: torch.Tensor) -> torch.Tensor:
        batch, places, width = x.shape
        return self.qkv(x).reshape(batch, places, 3, 4, width // 4).permute(2, 0, 3, 1, 4)


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 32), (0.25, 48), (0.7, 20)])
def test_a_stream_that_only_head_dims_can_follow_stays_unless_they_are_asked_for(ratio: float, kept: int):
    model, x = Stage(Literal, 64, (4, 4)), example(Literal)
    model.blocks.append(nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 64)))
    model.norms.append(nn.Identity())
    assert {g.granularity for g in pj.trace(model, x).groups} == {"embed", "neuron", "head_dim"}
    slim, plan = pj.prune(model, x, ratio=ratio)
    assert slim.embed.out_features == 64
    assert any(
        "embed.weight:0: 64 of 64" in p and "keep whole" in p and "head_dim" in p for p in plan.policies
    )
    slim, plan = pj.prune(model, x, ratio=ratio, granularity=("embed", "head_dim"))
    assert slim.embed.out_features == slim.blocks[1].proj.in_features == kept
    assert pj.verify(model, slim, plan, x).passed


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_a_budget_is_met_with_counts_that_fit(scope: str):
    model, x = Stage(Quotient, 96, (6, 12)), example(Quotient)
    slim, plan = pj.prune(model, x, budget="params<=0.5x", scope=scope)
    assert slim.embed.out_features == 16 * slim.blocks[0].heads == 8 * slim.blocks[1].heads
    assert sum(p.numel() for p in slim.parameters()) <= 0.5 * sum(p.numel() for p in model.parameters())
    assert pj.verify(model, slim, plan, x).passed


def test_rounding_and_the_least_number_kept_hold_for_tied_counts():
    model, x = Stage(Quotient, 96, (6,)), example(Quotient)
    slim, _ = pj.prune(model, x, ratio=0.7, round_to=24)
    assert (slim.embed.out_features, slim.blocks[0].heads) == (48, 3)
    slim, _ = pj.prune(model, x, ratio=0.9, min_kept=3)
    assert (slim.embed.out_features, slim.blocks[0].heads) == (48, 3)


def test_units_of_a_users_own_choice_are_refused_with_counts_that_work():
    model, x = Stage(Quotient, 64, (4,)), example(Quotient)
    structure = pj.trace(model, x)
    with pytest.raises(PlanError, match=r"counts are tied.*embed\.weight:0 48 of 64"):
        plan_removal(structure, {"embed.weight:0": range(17)})
    heads = next(g.name for g in structure.groups if g.granularity == "head")
    plan = plan_removal(structure, {"embed.weight:0": range(16), heads: [2]})
    assert pj.verify(model, pj.apply(model, plan), plan, x).passed


class Odd(nn.Module):
    """An op without a proof for cut channels beside a block whose heads and channels agree."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage(Quotient, 64, (4,))
        self.a, self.b = nn.Linear(3, 10), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.a(self.stage(x)))
        return self.b(h if str(h.shape[-1]) == "10" else h + 1)


def test_a_culprit_does_not_take_a_coupled_neighbour_with_it():
    model, x = Odd(), example(Quotient)
    slim, plan = pj.prune(model, x, ratio=0.5)
    assert [s.group for s in plan.skipped] == ["a.weight:0"]
    assert slim.stage.embed.out_features == 32
    assert pj.verify(model, slim, plan, x).passed


class Pieces(nn.Module):
    """Two halves of one layer go separate ways: their counts must agree, their units need not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 16), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.a(x).relu().chunk(2, dim=-1)
        return self.b(left) + self.c(right)


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, 4), (0.25, 6), (0.7, 2)])
def test_halves_of_one_layer_keep_equal_counts(ratio: float, kept: int):
    torch.manual_seed(1)
    model, x = Pieces(), torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    slim, plan = pj.prune(model, x, ratio=ratio)
    assert (slim.b.in_features, slim.c.in_features) == (kept, kept)
    assert pj.verify(model, slim, plan, x).passed
    assert plan.removed["b.weight"][1] != plan.removed["c.weight"][1]


KINDS = st.sampled_from([Attention, Quotient])


@settings(max_examples=12, derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([Attention, Quotient]), st.sampled_from([1, 2, 3, 4, 6])),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([12, 24, 36, 48]),
    st.floats(0.1, 0.9),
    st.booleans(),
)
def test_random_stages_are_cut_to_counts_that_fit(blocks, width: int, ratio: float, head_dims: bool):
    model = Stage(Attention, width, ())
    model.blocks.extend(kind(width, heads) for kind, heads in blocks)
    model.norms.extend(nn.LayerNorm(width) for _ in blocks)
    model.blocks.append(nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, width)))
    model.norms.append(nn.Identity())
    x, kinds = example(Attention), ("neuron", "embed", "head")
    slim, plan = pj.prune(model, x, ratio=ratio, granularity=(*kinds, "head_dim") if head_dims else kinds)
    kept = slim.embed.out_features
    assert kept >= max(1, int(width * (1 - ratio) + 0.5))
    assert all(block.proj.in_features == kept for block in slim.blocks[:-1])
    assert all(kept % block.heads == 0 for block in slim.blocks[:-1])
    assert not plan.skipped
    assert pj.verify(model, slim, plan, x).passed
