import pytest
import torch
from torch import nn

from penjing.core import UsageError
from penjing.recover import reestimate_bn
from penjing.recover._bn import adapt_bn, least_momentum
from penjing.recover._training import Training


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


def vectors() -> nn.Module:
    """Its batch norm sees one value per example and channel."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize(("extra", "counted"), [(1, False), (2, False), (63, False), (64, True)])
def test_a_small_last_batch_does_not_count(task, data, extra, counted):
    """128 examples and a few: as in training, fewer than half a batch is no batch; one has no variance at all."""
    data.examples = 128 + extra
    model, training = vectors(), Training(epochs=1)
    adapt_bn(model, task, data, training, examples=1024)
    first, last = (model[:2](x).detach() for x, _ in data.batches("train", 128, shuffle=True))
    wanted = (first.mean(0) + last.mean(0)) / 2 if counted else first.mean(0)
    torch.testing.assert_close(model[2].running_mean, wanted, rtol=1e-4, atol=1e-5)  # fp32 sums


def test_a_batch_of_one_example_says_what_to_do():
    model = vectors()
    before = model[2].running_var.clone()
    with pytest.raises(UsageError, match=r"Batch 2 .* one value per channel.*drop_last=True"):
        reestimate_bn(model, torch.randn(9, 1, 8, 8).split(8))
    assert torch.equal(model[2].running_var, before)
