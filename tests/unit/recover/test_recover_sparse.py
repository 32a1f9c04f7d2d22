"""Weights that become zero: which, when, and that they stay so; in loops of one's own and resumed half-way."""

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import penjing as pj
from penjing.core import UsageError
from penjing.criteria import Layout, pattern_masks, share_masks, weight_scores
from penjing.recover import Sparsity, TrainState, cubic, held, sparse_masks, sparsify, zero_masks, zero_out


def zeros(model: nn.Module) -> dict[str, float]:
    return {n: float((p == 0).float().mean()) for n, p in model.named_parameters() if p.dim() > 1}


def test_the_share_rises_by_a_cube():
    assert [cubic(step, 10, 0.9) for step in (0, 10, 15)] == pytest.approx([0, 0.9, 0.9])
    assert cubic(5, 10, 0.8, start=0.2) == pytest.approx(0.8 - 0.6 * 0.125)
    rising = [cubic(step, 50, 0.7) for step in range(51)]
    assert all(b >= a for a, b in itertools.pairwise(rising))


def test_masks_against_loops():
    """Plain loops: sort every layer's (output's, run of four's) scores and drop the lowest."""
    torch.manual_seed(0)
    scores = {"w": torch.rand(6, 8)}
    flat = sorted(scores["w"].flatten().tolist())
    assert share_masks(scores, 0.25)["w"].tolist() == [
        [v > flat[11] for v in row] for row in scores["w"].tolist()
    ]
    assert share_masks(scores, 0.5, {"w": Layout()})["w"].tolist() == [
        [v > sorted(row)[3] for v in row] for row in scores["w"].tolist()
    ]
    expected = []
    for row in scores["w"].tolist():
        runs = [row[:4], row[4:]]
        expected.append([v > sorted(run)[1] for run in runs for v in run])
    assert pattern_masks(scores, "2:4", {"w": Layout()})["w"].tolist() == expected
    turned = pattern_masks({"w": scores["w"].T}, "2:4", {"w": Layout(dim=0)})["w"]
    assert turned.T.tolist() == expected


def test_wanda_against_loops():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    batches = [(torch.randn(5, 2, 6, 6), None) for _ in range(2)]
    found = weight_scores("wanda", model, ["0.weight", "3.weight"], batches)
    for channel in range(2):
        norm = torch.cat([x[:, channel].flatten() for x, _ in batches]).square().mean().sqrt()
        expected = model[0].weight[:, channel].detach().abs() * norm
        torch.testing.assert_close(found["0.weight"][:, channel], expected)
    with torch.no_grad():
        seen = torch.cat([model[:3](x) for x, _ in batches])
    expected = model[3].weight.detach().abs() * seen.square().mean(0).sqrt()
    torch.testing.assert_close(found["3.weight"], expected)


def test_patterns_lie_along_the_inputs_of_every_layer():
    """Two of every four inputs of an output, wherever the layer keeps them."""
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(6, 8), nn.ConvTranspose1d(8, 3, 2), nn.ConvTranspose1d(16, 4, 1, groups=2))
    masks = sparse_masks(model, Sparsity(pattern="2:4"))
    assert (masks["0.weight"].unflatten(0, (2, 4)).sum(1) == 2).all()
    assert (masks["1.weight"].unflatten(0, (2, 4)).sum(1) == 2).all()
    assert (masks["2.weight"].unflatten(0, (4, 4)).sum(1) == 2).all()
    narrow = nn.Sequential(nn.ConvTranspose1d(4, 6, 1, groups=2))  # each output reads two
    assert sparse_masks(narrow, Sparsity(pattern="2:4")) == {}
    with pytest.raises(UsageError, match=r"0\.weight has 2 along dim 0"):
        sparse_masks(narrow, Sparsity(pattern="2:4", layers=("0",)))


def read_by(layer: nn.Module, output: int) -> list[tuple[tuple[int, ...], int]]:
    """The weights of an output, each with the channel that it multiplies."""
    if isinstance(layer, Conv1D):
        return [((i, output), i) for i in range(layer.nx)]
    wide, narrow = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    group, taps = output // narrow, range(layer.kernel_size[0])
    if isinstance(layer, nn.ConvTranspose1d):
        channels = range(group * wide, (group + 1) * wide)
        return [((i, output % narrow, t), i) for i in channels for t in taps]
    return [((output, i, t), group * wide + i) for i in range(wide) for t in taps]


@pytest.mark.parametrize(
    "layer",
    [Conv1D(6, 4), nn.ConvTranspose1d(4, 6, 3), nn.ConvTranspose1d(4, 6, 3, groups=2), nn.Conv1d(4, 6, 3, groups=2)],
)  # fmt: skip
def test_wanda_compares_the_weights_of_an_output(layer: nn.Module):
    torch.manual_seed(0)
    sizes = torch.tensor([9.0, 1.0, 0.2, 3.0])
    data = torch.randn(64, 4, 7) * sizes[:, None]
    nn.init.normal_(layer.weight)
    x = data.transpose(1, 2).contiguous() if isinstance(layer, Conv1D) else data
    masks = sparse_masks(nn.Sequential(layer), Sparsity(share=0.5, method="wanda"), [(x, None)])
    norms = data.square().mean((0, 2)).sqrt()
    for output in range(6):
        places = read_by(layer, output)
        scores = [float(layer.weight[at].detach().abs() * norms[channel]) for at, channel in places]
        kept = [score > sorted(scores)[len(scores) // 2 - 1] for score in scores]
        assert [bool(masks["0.weight"][at]) for at, _ in places] == kept


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_weight_norm_keeps_its_sizes(norm: Any):
    """A zero among them would take a whole output."""
    model = nn.Sequential(norm(nn.Conv1d(4, 6, 3)))
    masks = sparse_masks(model, Sparsity(share=0.5))
    zero_out(model, masks)
    model(torch.randn(1, 4, 8))
    assert len(masks) == 1
    assert int((model[0].weight == 0).sum()) == 6 * 4 * 3 // 2
    assert (model[0].weight.flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_zeros_are_held_in_a_loop_of_ones_own(net: Any, optimizer: Any):
    model = net()
    masks = sparse_masks(model, Sparsity(share=0.5))
    steps = optimizer(model.parameters(), lr=0.1)
    with held(model, masks):
        for _ in range(3):
            model(torch.randn(4, 1, 8, 8)).square().sum().backward()
            steps.step()
            assert all(share == pytest.approx(0.5, abs=0.03) for share in zeros(model).values())
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    steps.step()
    assert max(zeros(model).values()) < 0.1, "outside, weights are free again"


@pytest.mark.parametrize(
    "sparsity", [Sparsity(share=0.8), Sparsity(pattern="2:4"), Sparsity(share=0.6, method="wanda")]
)
def test_training_ends_with_the_zeros_asked_for(net: Any, task: Any, data: Any, sparsity: Sparsity):
    model, calibration = net(), list(data.batches("train", 32))
    stages, said = [], []
    fit = sparsify(model, net(), task, data, sparsity=sparsity, epochs=4, calibration=calibration, batch_size=32,
                   say=said.append, ema=0.9 if sparsity.share == 0.8 else 0.0,
                   checkpoint=lambda s: stages.append(s.stage))  # fmt: skip
    share = 0.5 if sparsity.pattern else sparsity.share
    found = zeros(fit.model)
    if sparsity.pattern:
        assert found.pop("blocks.0.0.weight") < 0.1, "one input channel, which 4 does not divide"
        runs = fit.model.head.weight.reshape(-1, 4)
        assert ((runs != 0).sum(1) <= 2).all()
        assert "does not divide their input dims, such as blocks.0.0.weight (1)" in said[0]
        assert fit.notes[0] == said[0]
    assert all(
        v == pytest.approx(share, abs=0.1 if sparsity.method == "wanda" else 0.02) for v in found.values()
    )
    assert any("pattern 2:4 leaves 1 of" in text for text in said) is (sparsity.pattern is not None)
    assert stages == (["sparsify"] * 4 if sparsity.pattern else ["sparsify-ramp"] * 2 + ["sparsify"] * 2)
    kept = zero_masks(model, list(found))
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(bool(m.any()) for m in kept.values())


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_ends_bit_for_bit_the_same(net: Any, task: Any, data: Any, stop: int):
    def run(**more: Any) -> nn.Module:
        return sparsify(
            net(), net(), task, data, sparsity=Sparsity(share=0.7), epochs=4, batch_size=32, **more
        ).model

    states: list[TrainState] = []
    whole = run(checkpoint=states.append)
    state = states[stop - 1]
    again = run(resume=TrainState.from_parts(state.to_tensors(), state.to_json()))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("options", [{"ramp": -1.0}, {"ramp": 2.0}, {"epochs": 0}])
def test_ramps_and_epochs_that_cannot_be_are_named(net: Any, task: Any, data: Any, options: dict[str, Any]):
    (name,) = options
    with pytest.raises(UsageError, match=f"^{name} must be .*{options[name]}"):
        sparsify(net(), None, task, data, sparsity=Sparsity(share=0.5), **options)


def test_saved_and_loaded_as_ever(net: Any, tmp_path: Any):
    model, x = net(), torch.randn(1, 1, 8, 8)
    slim, plan = pj.prune(model, x, ratio=0.5)
    zero_out(slim, sparse_masks(slim, Sparsity(share=0.5)))
    pj.save(tmp_path / "m", slim, plan, source="file:net.py:make")
    again = pj.load(tmp_path / "m", model=net())
    assert zeros(again) == zeros(slim)
    assert torch.equal(again(x), slim(x))


def test_zeros_and_sizes_are_measured():
    torch.manual_seed(0)
    model = nn.Linear(1000, 100)
    dense = pj.measure.measure_zeros(model)
    zero_out(model, sparse_masks(model, Sparsity(share=0.9)))
    sparse = pj.measure.measure_zeros(model)
    assert dense.share == 0
    assert sparse.by_weight == {"weight": pytest.approx(0.9)}
    assert sparse.share == pytest.approx(90_000 / 100_100)
    assert sparse.packed_bytes == 12_500 + 40_000 + 400
    assert sparse.zipped_bytes < 0.2 * dense.zipped_bytes
    assert dense.packed_bytes == 400_400


@pytest.mark.parametrize(("options", "told"), [
    ({"share": 1.0}, r"share=1.0 must lie in \[0, 1\)"), ({"share": -0.1}, r"\[0, 1\)"),
    ({"pattern": "4:2"}, "0 < N < M"), ({"pattern": "half"}, "N:M"), ({"share": 0.5, "pattern": "2:4"}, "not both"),
    ({"share": 0.5, "method": "obd"}, "magnitude, wanda"), ({"share": 0.5, "method": "wanda"}, "calibration="),
    ({"share": 0.5, "layers": "head"}, "must be a tuple"),
    ({"share": 0.5, "layers": ("bodies.*",)}, "'bodies.*' matches no weight"),
    ({"pattern": "2:4", "layers": ("blocks.0",)}, r"4 divides: blocks.0.0.weight has 1 along dim 1"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(net: Any, options: dict[str, Any], told: str):
    with pytest.raises(UsageError, match=told):
        sparse_masks(net(), Sparsity(**options))
