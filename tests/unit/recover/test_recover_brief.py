"""A recovery of a few steps."""

import torch

from penjing.recover import recover_briefly


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


def test_it_trains_for_so_many_steps_and_never_looks_at_the_selection_split(net, task, data):
    slim, teacher = net(), net(width=12)
    before = weights(slim)
    told = recover_briefly(
        slim, teacher, task, data, steps=3, batch_size=16, lr=0.01, bn_examples=0, loss="kl"
    )
    assert told["steps"] == 3
    assert told["loss"] == "kl"
    assert any(not torch.equal(p, before[name]) for name, p in slim.named_parameters())
    # one batch of the selection split tells the teacher's classes and layers; nothing is evaluated on it
    assert all(augment == "none" for split, augment, _, _ in data.views if split == "selection")
    trained = [split for split, *_ in data.views if split == "train"]
    assert len(trained) == 1
    assert not slim.training


def test_no_more_steps_than_one_epoch_has(net, task, data):
    told = recover_briefly(net(), None, task, data, steps=1000, batch_size=32, bn_examples=0)
    assert told["steps"] == 97 // 32


def test_the_same_seed_gives_the_same_network_and_the_teacher_stays(net, task, data):
    teacher = net(width=12)
    kept = weights(teacher)
    first, second = net(), net()
    for slim in (first, second):
        recover_briefly(slim, teacher, task, data, steps=2, batch_size=16, seed=3, bn_examples=64)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.buffers(), second.buffers(), strict=True))
    assert all(torch.equal(p, kept[name]) for name, p in teacher.named_parameters())
