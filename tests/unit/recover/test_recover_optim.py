import pytest
import torch
from torch import nn

from penjing.recover import Training, build_optimizer, param_groups
from penjing.recover._optim import layer_depths, pull


def where(groups, name):
    return next(group for group in groups if name in group.names)


def test_norm_scales_and_biases_do_not_decay(net):
    groups = param_groups(net(), lr=1e-3, weight_decay=0.1)
    assert where(groups, "blocks.0.0.weight").decay == 0.1
    assert where(groups, "blocks.0.0.bias").decay == 0.0
    assert where(groups, "blocks.1.1.weight").decay == 0.0
    assert sum(len(group.names) for group in groups) == len(list(net().parameters()))


def test_frozen_parameters_are_left_out(net):
    model = net()
    model.blocks.requires_grad_(False)
    names = {name for group in param_groups(model, lr=1.0, weight_decay=0.0) for name in group.names}
    assert names == {"head.weight", "head.bias"}


def test_layer_decay_goes_down_from_the_head(net):
    groups = param_groups(net(), lr=1.0, weight_decay=0.1, head="head", head_lr=5.0, layer_decay=0.5)
    assert where(groups, "head.weight").peak == 5.0
    assert where(groups, "blocks.1.0.weight").peak == 0.5
    assert where(groups, "blocks.0.1.weight").peak == 0.25


def test_depths_count_blocks_and_join_norms_to_what_they_follow():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv_stem = nn.Conv2d(3, 4, 3)
            self.bn1 = nn.BatchNorm2d(4)
            self.layers = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 4))
            self.classifier = nn.Linear(4, 2)

    depths = layer_depths(Net(), "classifier")
    assert depths["classifier.bias"] == 0
    assert depths["layers.1.weight"] == 1
    assert depths["layers.0.1.weight"] == 2
    assert depths["layers.0.0.weight"] == 3
    assert depths["conv_stem.weight"] == depths["bn1.bias"] == 4


def test_l2sp_pulls_to_the_anchor_by_lr_times_decay(net):
    model = net()
    anchors = {name: torch.zeros_like(p) for name, p in model.named_parameters() if "head" not in name}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    groups = param_groups(model, lr=0.5, weight_decay=0.2, head="head", anchors=anchors)
    pull(groups, 0.5)
    after = dict(model.named_parameters())
    expected = before["blocks.0.0.weight"] * (1 - 0.5 * 0.5 * 0.2)
    torch.testing.assert_close(after["blocks.0.0.weight"].detach(), expected)
    assert torch.equal(after["blocks.0.1.weight"], before["blocks.0.1.weight"])
    assert torch.equal(after["head.weight"], before["head.weight"])


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_optimizer_decays_only_what_has_no_anchor(net, name, kind):
    model = net()
    anchors = {"blocks.0.0.weight": torch.zeros(8, 1, 3, 3)}
    groups = param_groups(model, lr=0.5, weight_decay=0.2, head="head", anchors=anchors)
    optimizer = build_optimizer(groups, Training(epochs=1, optimizer=name))
    assert type(optimizer) is kind
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model.blocks[0][0].weight)] == 0.0
    assert decay[id(model.blocks[1][0].weight)] == 0.2
