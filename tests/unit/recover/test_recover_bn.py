import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.recover import reestimate_bn
from penjing.recover._bn import least_momentum


def test_statistics_become_the_mean_over_batches_and_nothing_else_moves(net):
    model = net(dropout=0.5)
    model.blocks[0][1].momentum = 0.3
    model.blocks[0].train()
    batches = [torch.randn(16, 1, 8, 8) * scale + 1 for scale in (1, 2, 3)]
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    reestimate_bn(model, batches)
    with torch.no_grad():
        seen = [model.blocks[0][0](x) for x in batches]
    mean = torch.stack([y.mean((0, 2, 3)) for y in seen]).mean(0)
    var = torch.stack([y.transpose(0, 1).flatten(1).var(1) for y in seen]).mean(0)
    # fp32 sums over 1,024 values
    torch.testing.assert_close(model.blocks[0][1].running_mean, mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.blocks[0][1].running_var, var, rtol=1e-4, atol=1e-5)
    assert model.blocks[0][1].momentum == 0.3
    assert model.blocks[0][1].training
    assert not model.blocks[1][1].training
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


def test_no_batches_and_errors_on_the_way_change_nothing(net):
    model = net()
    reestimate_bn(model, [torch.randn(8, 1, 8, 8)])
    before = {name: b.clone() for name, b in model.named_buffers()}
    with pytest.raises(UsageError, match="no batches"):
        reestimate_bn(model, [])
    with pytest.raises(RuntimeError):
        reestimate_bn(model, [torch.randn(8, 1, 8, 8), torch.randn(8, 3, 8, 8)])
    assert all(torch.equal(b, before[name]) for name, b in model.named_buffers())
    assert not any(module.training for module in model.modules())


def test_networks_without_batch_norm_are_left_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, track_running_stats=True))
    before = model[1].running_mean.clone()
    reestimate_bn(model, [torch.randn(4, 1, 8, 8)])
    assert torch.equal(model[1].running_mean, before)


def test_inputs_are_taken_out_of_a_batch(net):
    model, batch = net(), {"pictures": torch.randn(8, 1, 8, 8)}
    reestimate_bn(model, [batch], lambda b: b["pictures"])
    assert int(model.blocks[0][1].num_batches_tracked) == 1


def test_a_slow_momentum_is_raised_while_training_and_given_back(net):
    model = net()
    model.blocks[0][1].momentum, model.blocks[1][1].momentum = 0.01, None
    with least_momentum(model, 0.1):
        assert (model.blocks[0][1].momentum, model.blocks[1][1].momentum) == (0.1, None)

    def fail():
        with least_momentum(model, 0.0):
            assert model.blocks[0][1].momentum == 0.01
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert (model.blocks[0][1].momentum, model.blocks[1][1].momentum) == (0.01, None)
