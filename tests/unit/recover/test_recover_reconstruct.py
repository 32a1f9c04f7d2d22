"""Closed-form reconstruction against what it must restore."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core import Plan, PlanError, UsageError
from penjing.recover import _pairing, rebuild, reconstruct, recover, reestimate_bn
from penjing.recover._apart import Apart
from penjing.recover._refit import RIDGES, USUAL, Sums, refit
from penjing.recover._stations import Forward
from penjing.structure._products import Parameters, Product
from penjing.structure._survey import survey


def conv_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Identity(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)
    ).double().eval()  # fmt: skip


def cut(net: nn.Module, example: Any, first: str, stay: int, **options: Any) -> tuple[nn.Module, Plan]:
    """The first `stay` units of the group that `first` begins are kept."""

    def score(group: Any, model: nn.Module) -> Tensor:
        return -torch.arange(len(group), dtype=torch.float64)

    whole = dict(net.named_parameters())[first].shape[0]
    return pj.prune(net, example, ratio={first: 1 - stay / whole}, criterion=score, **options)


def batches(*shape: int, count: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(count)]


@torch.no_grad()
def test_channels_that_are_linear_functions_of_kept_ones_cost_nothing() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    mixing = torch.randn(4, 4, dtype=torch.float64)
    net[0].weight[4:] = torch.einsum("ab,bikl->aikl", mixing, net[0].weight[:4])
    net[0].bias[4:] = mixing @ net[0].bias[:4]
    slim, plan = cut(net, data[0], "0.weight", 4)
    wanted = net(data[0])
    assert (slim(data[0]) - wanted).abs().max() > 0.1
    found = reconstruct(net, slim, plan, data)
    assert slim[0].out_channels == 4
    assert (slim(data[0]) - wanted).abs().max() < 1e-6  # the least ridge of the grid is 1e-8
    assert found.layers[1].before > 0.1
    assert found.layers[1].after < 1e-9
    assert [layer.name for layer in found.layers] == ["0.weight", "2.weight", "5.weight"]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@torch.no_grad()
def test_what_a_dropped_block_gave_is_made_up_for_by_the_next() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), Residual(), Residual(), nn.Flatten(), nn.Linear(64, 3))
    net = net.double().eval()
    net[1].body = nn.Conv2d(4, 4, 1).double()  # a linear function of what the next block reads
    data = batches(16, 3, 4, 4)
    slim, plan, _ = pj.trim(net, data[0], evaluate=lambda m: float(len(list(m[1].parameters()))), drop=1)
    assert plan.dropped == ("1",)
    wanted = net(data[0])
    assert (slim(data[0]) - wanted).abs().max() > 0.1
    found = reconstruct(net, slim, plan, data)
    assert [layer.name for layer in found.layers if layer.positions] == ["2.body.weight"]
    assert (slim(data[0]) - wanted).abs().max() < 1e-6


@torch.no_grad()
def test_constant_channels_move_into_the_bias() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double().eval()
    net[0].weight[3:], net[0].bias[3:] = 0, 2.0
    data = batches(64, 5)
    slim, plan = cut(net, data[0], "0.weight", 3)
    reconstruct(net, slim, plan, data)
    assert torch.allclose(slim(data[0]), net(data[0]), atol=1e-6)  # the least ridge of the grid is 1e-8


def test_nothing_removed_changes_nothing() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    same = copy.deepcopy(net)
    before = {name: t.clone() for name, t in same.state_dict().items()}
    found = reconstruct(net, same, Plan(edits=(), fingerprint=pj.trace(net, data[0]).fingerprint), data)
    assert all(torch.equal(before[name], t) for name, t in same.state_dict().items())
    assert all(layer.before == layer.after for layer in found.layers)


def test_batch_norms_take_the_statistics_of_all_batches_together() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)
    ).eval()
    data = [b.float() for b in batches(4, 3, 5, 5)]
    slim, plan = cut(net, data[0], "0.weight", 5)
    reconstruct(net, slim, plan, data)
    with torch.no_grad():
        seen = slim[:3](torch.cat(data))
    assert torch.allclose(slim[3].running_mean, seen.mean((0, 2, 3)), atol=1e-5)  # float32 sums
    assert torch.allclose(slim[3].running_var, seen.var((0, 2, 3)), rtol=1e-4)


class Separable(nn.Module):
    """Two inverted residual blocks on a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
                nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
                nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4),
            ) for _ in range(2)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


@torch.no_grad()
def test_depthwise_blocks_with_batch_norm_make_up_for_their_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, data = Separable().double().eval(), batches(8, 4, 6, 6)
    whole = torch.cat(data)
    reestimate_bn(net, [whole])
    with torch.enable_grad():
        slim, plan = cut(net, data[0], "blocks.0.0.weight", 5)
    plain, wanted = copy.deepcopy(slim), net(whole)
    assert slim.blocks[0][3].groups == 5
    reconstruct(net, slim, plan, data)
    given = slim(whole)
    reestimate_bn(slim, [whole])
    apart = (slim(whole) - given).square().mean() / given.square().mean()
    assert apart < 1e-5  # a batch normalises itself by n, statistics by n - 1
    monkeypatch.setattr(Forward, "_partner", lambda self, item, meeting: None)
    reconstruct(net, plain, plan, data)
    assert (given - wanted).square().mean() < 0.9 * (plain(whole) - wanted).square().mean()


class Encoder(nn.Module):
    """Tokens with a mask: padding is garbage that attention does not look at."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(6, 16), nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = tokens + self.down(torch.relu(self.up(tokens)))
        weight = attention_mask.to(hidden.dtype).unsqueeze(-1)
        return self.head((hidden * weight).sum(1) / weight.sum(1))


class Bare:
    """The least a task has to say here."""

    name = "bare"

    def inputs(self, batch: Any) -> Any:
        return batch

    def logits(self, outputs: Tensor) -> Tensor:
        return outputs


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    net = Encoder().double().eval()
    plain = [{"tokens": x, "attention_mask": torch.ones(8, 5).long()} for x in batches(8, 5, 6)]
    padded = [
        {
            "tokens": torch.cat([b["tokens"], 50 * torch.randn(8, 4, 6).double()], 1),
            "attention_mask": torch.cat([b["attention_mask"], torch.zeros(8, 4).long()], 1),
        }
        for b in plain
    ]
    slim, plan = cut(net, plain[0], "up.weight", 8)
    other = copy.deepcopy(slim)
    reconstruct(net, slim, plan, plain, task=Bare())  # pyright: ignore[reportArgumentType]
    found = reconstruct(net, other, plan, padded, task=Bare())  # pyright: ignore[reportArgumentType]
    assert {r.positions for r in found.layers} == {0, 64, 8 * 5 * 8}  # untouched, pooled, and all but padding
    for ours, theirs in zip(slim.parameters(), other.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-9)


def test_positions_may_run_before_examples() -> None:
    """`nn.MultiheadAttention` lays its rows out by position; what it is given at padding must not matter."""
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(6, 2, 16, batch_first=True).double().eval()
    masks = [torch.arange(5) >= 1 + torch.arange(8).unsqueeze(1) % 5 for _ in range(8)]
    data = [{"src": x, "src_key_padding_mask": m} for x, m in zip(batches(8, 5, 6), masks, strict=True)]
    slim, plan = cut(net, data[0], "linear1.weight", 8)
    seen = [r.positions for r in reconstruct(net, slim, plan, data, task=Masked()).layers]  # pyright: ignore[reportArgumentType]
    assert set(seen) == {0, 8 * int((~masks[0]).sum())}


@torch.no_grad()
def test_attention_whose_heads_were_cut_meets_the_rows_of_the_original() -> None:
    """The second half of the heads says what the first does, so that the output projection makes up for it."""
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True).double().eval()
    for rows in net.self_attn.in_proj_weight.chunk(3):
        rows[4:] = rows[:4]
    data = batches(6, 5, 8)
    slim, plan = cut(net, data[0], "self_attn.in_proj_weight", 12, granularity="head")
    assert slim.self_attn.num_heads == 2
    wanted = net(data[0])
    assert (slim(data[0]) - wanted).abs().max() > 0.1
    found = {layer.name: layer for layer in reconstruct(net, slim, plan, data).layers}
    assert found["self_attn.out_proj.weight"].after < 1e-9
    assert (slim(data[0]) - wanted).abs().max() < 1e-6


def test_what_misses_next_to_nothing_is_left_as_it_is() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    slim, plan = cut(net, data[0], "0.weight", 4)
    first = slim.state_dict()["0.weight"].clone()
    found = {r.name: r for r in reconstruct(net, slim, plan, data).layers}
    assert torch.equal(slim.state_dict()["0.weight"], first)
    assert found["0.weight"].positions == 0
    assert found["0.weight"].before == found["0.weight"].after <= 1e-20
    assert found["2.weight"].positions > 0
    assert found["2.weight"].after < found["2.weight"].before


class Masked(Bare):
    def inputs(self, batch: Any) -> Any:
        return Marked(batch)


class Marked(dict[str, Any]):
    """Inputs of the layer alone; the mask as ones and zeros is seen by who looks at all values."""

    def values(self) -> Any:
        return [*super().values(), (~self["src_key_padding_mask"]).long()]


def test_every_refit_helps_and_few_positions_are_said() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    slim, plan = cut(net, data[0], "0.weight", 4)
    found = reconstruct(net, slim, plan, data)
    assert all(layer.after <= layer.before for layer in found.layers)
    assert any("fewer than 4 positions per input" in note and "5.weight" in note for note in found.notes)
    assert found.examples == 32


@pytest.mark.parametrize(("count", "size"), [(8, 2), (16, 1), (4, 4), (1, 16)])
def test_the_ridge_is_not_small_where_data_is_too_little_and_it_is_said(count: int, size: int) -> None:
    net, data = conv_net(), batches(size, 3, 6, 6, count=count)
    slim, plan = cut(net, data[0], "0.weight", 4)
    found = reconstruct(net, slim, plan, data)
    ridge = {layer.name: layer.ridge for layer in found.layers}["5.weight"]
    assert ridge >= USUAL
    said = f"grew up to {ridge:g};" if ridge > USUAL else f"is at most {ridge:g};"
    assert any(said in note and "5.weight (16 for 96 inputs)" in note for note in found.notes)
    data = batches(64, 3, 6, 6, count=16)
    slim, plan = cut(net, data[0], "0.weight", 4)
    found = reconstruct(net, slim, plan, data)
    assert {layer.name: layer.ridge for layer in found.layers}["2.weight"] < USUAL
    assert not found.notes


@pytest.mark.parametrize("sizes", [(64,), (40, 24), (30, 30, 4), (21, 21, 21, 1)])
def test_of_few_batches_every_fourth_example_chooses_the_ridge(sizes: tuple[int, ...]) -> None:
    net, data = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval(), batches(64, 5)[0]
    slim, plan = cut(net, data, "0.weight", 4)
    other = copy.deepcopy(slim)
    found = {r.name: r for r in reconstruct(net, slim, plan, data.split(list(sizes))).layers}["2.weight"]
    apart = torch.arange(64) % 4 == 3
    split = [data[~apart][rows] for rows in torch.arange(48).chunk(3)] + [data[apart]]
    twin = {r.name: r for r in reconstruct(net, other, plan, split).layers}["2.weight"]
    assert found.ridge == twin.ridge
    assert found.positions == twin.positions == 64
    assert torch.allclose(slim[2].weight, other[2].weight)


def test_a_given_ridge_is_not_taken_where_one_batch_says_better() -> None:
    net, data = conv_net(), batches(512, 3, 6, 6, count=1)
    slim, plan = cut(net, data[0], "0.weight", 4)
    ridges = {r.ridge for r in reconstruct(net, slim, plan, data).layers if r.ridge}
    assert len(ridges) > 1 or ridges != {USUAL}


@pytest.mark.parametrize(
    ("count", "size", "fitted"),
    [(1, 1, set()), (1, 7, set()), (8, 1, {"2.weight"}), (1, 16, {"2.weight", "5.weight"})],
)
def test_what_meets_too_little_is_left_as_it_is_and_said(count: int, size: int, fitted: set[str]) -> None:
    """The convolution meets 16 positions of an example, of which 8 count as one more; the head meets one."""
    net, data = conv_net(), batches(size, 3, 6, 6, count=count)
    slim, plan = cut(net, data[0], "0.weight", 4)
    before = {name: t.clone() for name, t in slim.named_parameters()}
    found = reconstruct(net, slim, plan, data)
    assert {r.name for r in found.layers if r.ridge} == fitted
    assert {n for n, t in slim.named_parameters() if not torch.equal(t, before[n])} <= {
        name.replace("weight", kind) for name in fitted for kind in ("weight", "bias")
    }
    assert any("are left as they are, such as" in note for note in found.notes) is (len(fitted) < 2)


@pytest.mark.parametrize("lead", [(), (8, 5), (5, 8)])
def test_positions_of_one_example_stay_together(lead: tuple[int, ...]) -> None:
    item = Product("w", torch.zeros(40, 3), torch.zeros(3, 2), lead=lead)
    mask = Apart.of([8])._mask(0, item, None)
    rows = torch.arange(40) % 8 if lead == (5, 8) else torch.arange(40) // 5
    assert torch.equal(mask, rows % 4 == 3)
    assert torch.equal(Apart.of([8]).positions(0, True, item, torch.tensor([0, 39])), torch.tensor([39]))
    assert int(Apart.of([2])._mask(0, item, None).sum()) == 10  # a quarter of each of two examples


@torch.no_grad()
def test_recurrent_weights_of_one_batch_keep_a_quarter_apart_too() -> None:
    torch.manual_seed(0)
    net, data = Recurrent().double().eval(), batches(64, 7, 5)[0]
    slim, plan = cut(net, data[:2], "rnn.weight_hh_l0", 24)
    other = copy.deepcopy(slim)
    apart = torch.arange(64) % 4 == 3
    split = [*data[~apart].split(16), data[apart]]
    ridges = [
        {r.name: r.ridge for r in reconstruct(net, s, plan, given).layers if r.ridge and "rnn" in r.name}
        for s, given in ((slim, [data]), (other, split))
    ]
    assert ridges[0] == ridges[1]
    assert ridges[0]


@torch.no_grad()
def test_eight_examples_do_not_make_a_network_worse() -> None:
    torch.manual_seed(0)
    net = (
        nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
        .double()
        .eval()
    )
    held = batches(256, 8)[0]
    for seed in range(4):
        data = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        slim, plan = cut(net, data, "0.weight", 16)
        before = (slim(held) - net(held)).square().mean()
        reconstruct(net, slim, plan, [data])
        assert (slim(held) - net(held)).square().mean() <= before


def test_a_singular_covariance_is_solved_all_the_same() -> None:
    """The cut channels' readers see three copies of one picture: 9 directions for 27 inputs."""
    net = conv_net()
    data = [x[:, :1].expand(-1, 3, -1, -1).contiguous() for x in batches(16, 3, 6, 6)]
    slim, plan = cut(net, data[0], "0.weight", 4)
    with torch.no_grad():
        slim[0].weight[1] = slim[0].weight[0]
        slim[0].bias[1] = slim[0].bias[0]
    found = reconstruct(net, slim, plan, data)
    assert all(bool(torch.isfinite(p).all()) for p in slim.parameters())
    assert all(layer.after <= layer.before for layer in found.layers)
    assert all(math.isfinite(layer.after) for layer in found.layers)


def test_memory_bounds_the_batches() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    slim, plan = cut(net, data[0], "0.weight", 4)
    three = reconstruct(net, copy.deepcopy(slim), plan, data[:3]).memory
    found = reconstruct(net, slim, plan, data, memory=three)
    assert (found.examples, found.memory) == (12, three)
    assert any("3 of 8 calibration batches" in note for note in found.notes)


def test_dead_and_equal_inputs_survive() -> None:
    net = conv_net()
    slim, plan = cut(net, torch.zeros(1, 3, 6, 6).double(), "0.weight", 4)
    data = [torch.zeros(4, 3, 6, 6).double()] * 4
    reconstruct(net, slim, plan, data)
    assert all(torch.isfinite(p).all() for p in slim.parameters())
    assert torch.allclose(slim(data[0]), net(data[0]))


def test_nan_is_named() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    slim, plan = cut(net, data[0], "0.weight", 4)
    data[3][0, 0, 0, 0] = float("nan")
    with pytest.raises(UsageError, match=r"0\.weight.*NaN"):
        reconstruct(net, slim, plan, data)
    with pytest.raises(UsageError, match="no batches"):
        reconstruct(net, slim, plan, [])


class Twice(nn.Module):
    """One weight read twice, another by two kinds of operators."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.tied = nn.Linear(5, 8), nn.Linear(8, 8), nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return torch.relu(self.again(torch.relu(self.again(x)))) @ self.tied.T + self.tied.sum()


def test_batches_without_examples_are_passed_over() -> None:
    net, given = conv_net(), batches(16, 3, 6, 6)
    empty = torch.zeros(0, 3, 6, 6, dtype=torch.float64)
    slim, plan = cut(net, given[0], "0.weight", 6)
    twin = copy.deepcopy(slim)
    found = reconstruct(net, slim, plan, [empty, *given, empty])
    reconstruct(net, twin, plan, given)
    assert found.examples == 16 * len(given)
    assert all(torch.equal(a, b) for a, b in zip(slim.parameters(), twin.parameters(), strict=True))
    with pytest.raises(UsageError, match="no batches"):
        reconstruct(net, slim, plan, [empty])


def test_weights_of_several_operators_are_left_alone_and_said() -> None:
    torch.manual_seed(0)
    net, data = Twice().double().eval(), batches(16, 5)
    slim, plan = cut(net, data[0], "first.weight", 6)
    found = reconstruct(net, slim, plan, data)
    assert {layer.name: layer.cause for layer in found.layers} == {
        "again.weight": "",
        "first.weight": "",
        "tied": "several operators read it: mm and sum",
    }


class Others(nn.Module):
    """Weights that meet data, or do not, in ways that are not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.place = nn.Embedding(9, 8), nn.Parameter(torch.randn(4, 8))
        self.first, self.wide = nn.Linear(8, 6), nn.Linear(24, 6)
        self.up, self.pair = nn.ConvTranspose1d(6, 6, 2, stride=2), nn.Bilinear(6, 6, 5)
        self.vector, self.spare = nn.Parameter(torch.randn(5)), nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.relu(self.first(self.table(tokens) + self.place))
        x = x + self.wide(x.flatten(1)).unsqueeze(1)
        x = torch.relu(self.up(x.mT)).mean(2)
        return torch.relu(self.pair(x, x)) @ self.vector


def test_nothing_is_left_alone_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = Others().double().eval()
    data = [torch.randint(0, 9, (16, 4)) for _ in range(4)]
    slim, plan = cut(net, data[0], "first.weight", 3)
    monkeypatch.setattr(_pairing, "WIDEST", 10)
    found = reconstruct(net, slim, plan, data)
    assert {layer.name: layer.cause for layer in found.layers} == {
        "first.weight": "",
        "table.weight": "what reads it is not refitted: embedding",
        "place": "what reads it is not refitted: add",
        "wide.weight": "its 12 inputs are more than 10",
        "up.weight": "what reads it is not refitted: transposed convolution",
        "pair.weight": "what reads it is not refitted: _trilinear",
        "vector": "what reads it is not refitted: mv",
        "spare.weight": "no operator reads it",
    }
    assert all(layer.positions == 0 for layer in found.layers if layer.cause)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.LSTM(5, 12, num_layers=2, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@torch.no_grad()
def test_recurrent_weights_make_up_for_units_that_follow_others() -> None:
    torch.manual_seed(0)
    net, data = Recurrent().double().eval(), batches(16, 7, 5)
    for name, weight in net.rnn.named_parameters():
        weight.mul_(2)
        if name.endswith("l0"):  # units 6 to 11 of the first layer are units 0 to 5
            for gate in range(4):
                weight[12 * gate + 6 : 12 * gate + 12] = weight[12 * gate : 12 * gate + 6]
    with torch.enable_grad():
        slim, plan = cut(net, data[0], "rnn.weight_hh_l0", 24)
    assert slim.rnn.weight_hh_l0.shape == (24, 6)
    before = (slim(data[0]) - net(data[0])).abs().max()
    found = reconstruct(net, slim, plan, data)
    after = {layer.name: layer.after for layer in found.layers}
    assert after["rnn.weight_hh_l0"] < 1e-9
    assert after["rnn.weight_ih_l1"] < 1e-9
    assert after["rnn.weight_hh_l1"] > 1e-3  # whose units follow no others
    assert before > 0.05
    assert (slim(data[0]) - net(data[0])).abs().max() < 0.2 * before


def test_an_error_in_a_forward_reaches_the_caller() -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    slim, plan = cut(net, data[0], "0.weight", 4)
    with pytest.raises(RuntimeError):
        reconstruct(net, slim, plan, [*data[:2], torch.zeros(1, 5, 6, 6).double()])


def test_refit_is_ridge_regression_by_hand() -> None:
    rng = np.random.default_rng(0)
    phi, noise = rng.normal(size=(40, 6)) + 3, 0.1 * rng.normal(size=(40, 2))
    y = phi @ rng.normal(size=(6, 2)) + 5 + noise
    weight = rng.normal(size=(2, 6))
    learned, held = Sums(), Sums()
    for rows, sums in ((slice(0, 10), learned), (slice(10, 30), learned), (slice(30, 40), held)):
        sums.add(torch.tensor(phi[None, rows]), torch.tensor(y[None, rows]))
    found = refit(torch.tensor(weight)[None], learned, held, offset=True)

    def solve(p: np.ndarray, q: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
        p0, q0 = p - p.mean(0), q - q.mean(0)
        within = p0.T @ p0 / len(p)
        scale = np.trace(within) / 6
        w = weight + (q0.T @ p0 / len(p) - weight @ within) @ np.linalg.inv(
            within + ridge * scale * np.eye(6)
        )
        return w, q.mean(0) - w @ p.mean(0)

    def loss(ridge: float) -> float:
        w, b = solve(phi[:30], y[:30], ridge)
        return float(((y[30:] - phi[30:] @ w.T - b) ** 2).sum())

    best = min(RIDGES, key=loss)
    w, b = solve(phi, y, best)
    assert found.ridge == best
    assert np.allclose(found.weight[0], w)
    assert np.allclose(found.offset[0], b)
    spread = ((y - y.mean(0)) ** 2).sum()
    assert np.isclose(found.after, ((y - phi @ w.T - b) ** 2).sum() / spread)


def test_rebuild_keeps_what_helps_and_takes_back_what_does_not(net: Any, task: Any, data: Any) -> None:
    whole = recover(
        net(width=16), None, task, data, epochs=6, batch_size=16, lr=1e-2, bn_examples=0
    ).model.eval()
    slim, plan = pj.prune(whole, torch.randn(1, 1, 8, 8), ratio=0.5, criterion="random")
    given = {name: t.clone() for name, t in slim.state_dict().items()}
    done = rebuild(slim, whole, plan, task, data, examples=64)
    assert done is not None
    assert done.kept
    assert done.after["loss"] < done.before["loss"]
    assert done.found.examples == 64
    slim.load_state_dict(given)
    assert rebuild(slim, whole, plan, task, data, when=False) is None
    refused = rebuild(slim, whole, plan, Stubborn(task), data)
    assert refused is not None
    assert not refused.kept
    assert all(torch.equal(given[name], t) for name, t in slim.state_dict().items())
    with pytest.raises(UsageError, match="true, false or auto"):
        rebuild(slim, whole, plan, task, data, when="perhaps")


class Stubborn:
    """A task whose figures get worse each time it is asked."""

    def __init__(self, task: Any) -> None:
        self.task, self.asked = task, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def metric(self, logits: Tensor, targets: Tensor) -> dict[str, Any]:
        self.asked += 1
        return {"accuracy": 1 / self.asked}


class Stream(nn.Module):
    """Two blocks added to a stream; code runs another way before the first block for some inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 6, bias=False)
        self.c, self.d = nn.Linear(6, 24), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 16:
            x = x * 1.0
        x = x + self.b(torch.relu(self.a(x.transpose(0, 1)))).transpose(0, 1)
        return self.d(self.c(x)) + x


def test_a_product_makes_up_for_what_its_stream_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, data = Stream().double().eval(), [*batches(16, 5, 6), *batches(12, 5, 6)]
    slim, plan = cut(net, data[0], "a.weight", 6)
    plain = copy.deepcopy(slim)
    reconstruct(net, slim, plan, data)
    monkeypatch.setattr(Forward, "_partner", lambda self, item, meeting: None)
    reconstruct(net, plain, plan, data)
    wanted, fresh = net(data[0]), data[0]
    assert (slim(fresh) - wanted).square().mean() < 0.9 * (plain(fresh) - wanted).square().mean()


def test_a_survey_finds_biases_norms_and_streams() -> None:
    net = Stream().double().eval()
    found = survey(lambda: net(torch.randn(2, 5, 6).double()), Parameters(net))
    met = {m.name: m for m in found.meetings}
    assert list(met) == ["a.weight", "b.weight", "c.weight", "d.weight"]
    assert [m.bias for m in found.meetings] == ["a.bias", None, "c.bias", "d.bias"]
    assert met["d.weight"].partner is not None
    assert met["d.weight"].partner.after == "b.weight"
    assert met["c.weight"].partner is None
    assert 0 < found.peak < 20_000
    convs = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    found = survey(lambda: convs(torch.randn(2, 3, 5, 5)), Parameters(convs))
    assert [(m.bias, m.norm is not None) for m in found.meetings] == [(None, True), ("2.bias", False)]


class Siamese(nn.Module):
    """One batch norm at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm = nn.Linear(5, 4), nn.Linear(5, 4), nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.one(x)).relu() - self.norm(3 * self.two(x) + 2).relu())


def test_a_batch_norm_of_two_places_keeps_its_statistics() -> None:
    torch.manual_seed(0)
    net, data = Siamese().double().eval(), batches(64, 5)
    same = copy.deepcopy(net)
    found = reconstruct(net, same, Plan(edits=(), fingerprint=pj.trace(net, data[0]).fingerprint), data)
    assert all(torch.equal(t, same.state_dict()[name]) for name, t in net.state_dict().items())
    assert any("such as norm, run several times" in note for note in found.notes)


@pytest.mark.parametrize(("size", "kept"), [(1, True), (4, True), (64, False)])
def test_few_values_leave_a_batch_norm_as_it_is(size: int, kept: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4), nn.BatchNorm1d(4)).double().eval()
    data = batches(size, 5, count=1)
    slim, plan = cut(net, batches(64, 5)[0], "0.weight", 4)
    found = reconstruct(net, slim, plan, data)
    assert bool((slim[3].running_var == 1).all()) is kept
    assert any(f"as few as {size} values" in note for note in found.notes) is kept


def test_norms_on_copies_of_their_statistics_do_not_stop_the_walk() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.InstanceNorm2d(8, track_running_stats=True), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )
    net, data = net.double().eval(), batches(8, 3, 4, 4)
    slim, plan = cut(net, data[0], "0.weight", 4)
    found = reconstruct(net, slim, plan, data)
    assert not any("different ways" in note for note in found.notes)
    assert found.layers[-1].name == "3.weight"
    assert found.layers[-1].after < found.layers[-1].before


@pytest.mark.parametrize(("option", "number"), [("positions", 0), ("memory", -1)])
def test_options_that_leave_nothing_are_refused(option: str, number: int) -> None:
    net, data = conv_net(), batches(4, 3, 6, 6)
    slim, plan = cut(net, data[0], "0.weight", 4)
    with pytest.raises(UsageError, match=f"{option}={number} .*give at least 1"):
        reconstruct(net, slim, plan, data, **{option: number})


@pytest.mark.parametrize("silent", [0, 4, 7])
@torch.no_grad()
def test_one_batch_unlike_the_others_does_not_hide_what_a_weight_misses(silent: int) -> None:
    net, data = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval(), batches(64, 5)
    net[0].weight[4:], net[0].bias[4:] = 0, 0
    net[0].weight[4:, 4] = 3.0
    data[silent][:, 4] = 0
    slim, plan = cut(net, data[1], "0.weight", 4)
    found = {layer.name: layer for layer in reconstruct(net, slim, plan, data).layers}
    assert found["2.weight"].positions == 512
    assert found["2.weight"].after < found["2.weight"].before


def small_net() -> tuple[nn.Module, nn.Module, Plan]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)).double()
    return net, *pj.prune(net, batches(2, 6)[0], ratio=0.5)


@pytest.mark.parametrize("mode", [torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_modes_change_nothing(mode: Any) -> None:
    """Both hide products from whoever watches operators: nothing would be refitted."""
    net, slim, plan = small_net()
    other = copy.deepcopy(slim)
    reconstruct(net, slim, plan, batches(16, 6))
    with mode():
        reconstruct(net, other, plan, batches(16, 6))
    assert all(torch.equal(a, b) for a, b in zip(slim.parameters(), other.parameters(), strict=True))


class Breaking(nn.Sequential):
    """Breaks on batches of five, behind its second layer; counts calls in a buffer."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self[2](self[1](self[0](x)))
        if len(x) == 5:
            raise RuntimeError("five")
        return self[4](self[3](x))


def test_an_error_on_the_way_leaves_the_weights_as_they_were() -> None:
    net = Breaking(*small_net()[0])
    slim, plan = pj.prune(net, batches(2, 6)[0], ratio=0.5)
    before = copy.deepcopy(slim.state_dict())
    with pytest.raises(RuntimeError, match="five"):
        reconstruct(net, slim, plan, [*batches(16, 6), *batches(5, 6, count=1)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in slim.state_dict().items())
    reconstruct(net, slim, plan, batches(16, 6))
    assert not torch.equal(slim[2].weight, before["2.weight"])
    assert float(net.calls) == 0


def test_networks_that_do_not_belong_to_the_plan_are_refused() -> None:
    net, slim, plan = small_net()
    for model, cut_one in ((slim, net), (net, copy.deepcopy(net))):
        with pytest.raises(PlanError, match=r"is \[12\] in `slim`, and the plan leaves .*by this plan\?"):
            reconstruct(model, cut_one, plan, batches(16, 6))
    for given in (None, batches(16, 6)[0]):
        with pytest.raises(UsageError, match="give an iterable of batches"):
            reconstruct(net, slim, plan, given)  # type: ignore[arg-type]
