"""Mixup: a function of the seed, both labels in the loss, the same for student and teacher, exact on replay."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.core import Recipe, UsageError
from penjing.recover import (
    TeacherCache,
    Training,
    TrainState,
    distil,
    distillation_loss,
    kd_kl,
    recover,
    transfer,
)
from penjing.recover._losses import find_loss
from penjing.recover._mixup import Mixed, MixedTask, mixed, mixing
from penjing.recover._teaching import Taught, Teaching
from penjing.tasks import image_classification

OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 16, "augment": "noise", "lr": 3e-3}
ON: dict[str, Any] = {**OPTIONS, "mixup": 0.4}


def served(data: Any, epoch: int = 0, **options: Any) -> list[Mixed]:
    training = Training(**(ON | options))
    batches = data.batches("train", 16, augment="noise", seed=training.seed, epoch=epoch, shuffle=True)
    return list(mixed(list(batches)[:6], training, epoch))


def trained(step: Any, net: Any, task: Any, data: Any, **options: Any) -> dict[str, Tensor]:
    states: list[TrainState] = []
    student = net()
    if step is transfer:
        transfer(student, task, data, head="head", probe_epochs=1, checkpoint=states.append, **options)
    else:
        step(student, net(width=12), task, data, checkpoint=states.append, **options)
    return dict(states[-1].model)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("step", [transfer, distil, recover])
def test_it_is_off_unless_asked_for_and_then_repeats(net, task, data, step):
    plain = trained(step, net, task, data, **OPTIONS)
    assert same(plain, trained(step, net, task, data, **OPTIONS, mixup=0.0))
    laid = trained(step, net, task, data, **ON)
    assert not same(plain, laid)
    assert same(laid, trained(step, net, task, data, **ON))


def test_each_example_is_laid_over_its_partner_in_one_share_of_its_batch(data):
    raw = list(data.batches("train", 16, augment="noise", epoch=2, shuffle=True))[:6]
    for (inputs, targets), found in zip(raw, served(data, 2), strict=True):
        assert sorted(found.partners) == list(range(16))
        for i, j in enumerate(found.partners):
            laid = found.share * inputs[i].double() + (1 - found.share) * inputs[j].double()
            # float32 products of numbers below 4: a few roundings of 2**-22
            assert torch.allclose(found.inputs[i].double(), laid, rtol=0, atol=2e-6)
            assert (int(found.targets[i]), int(found.others[i])) == (int(targets[i]), int(targets[j]))


def test_it_is_a_function_of_seed_epoch_and_batch(data):
    first, again = served(data), served(data)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert (one.partners, one.share) == (other.partners, other.share)
    drawn = [*first, *served(data, 1), *served(data, seed=1)]
    assert len({found.share for found in drawn}) == len({found.partners for found in drawn}) == 18


def test_shares_are_drawn_from_a_beta_distribution():
    batches = [(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))] * 4000
    for alpha in (0.2, 1.0):
        training = Training(epochs=1, mixup=alpha)
        shares = np.array([found.share for found in mixed(batches, training, 0)])
        # 4000 draws: the mean of Beta(a, a) is 1/2 and its variance 1 / (8 a + 4), each within 4 standard errors
        assert abs(shares.mean() - 0.5) < 4 * (1 / (8 * alpha + 4) / 4000) ** 0.5
        assert abs(shares.var() - 1 / (8 * alpha + 4)) < 0.1 / (8 * alpha + 4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_mixed_example_weighs_both_labels(net, data, smoothing):
    """The slow twin: cross entropy against the mixed one-hot targets, one example after the other."""
    task, student, teacher = image_classification(smoothing), net(), net(width=12)
    batch = served(data)[1]
    total = 0.0
    with torch.no_grad():
        own, taught = student(batch.inputs), teacher(batch.inputs)
        for i, row in enumerate(own.log_softmax(-1).double()):
            aim = torch.full((4,), smoothing / 4, dtype=torch.float64)
            aim[batch.targets[i]] += batch.share * (1 - smoothing)
            aim[batch.others[i]] += (1 - batch.share) * (1 - smoothing)
            total -= float((aim * row).sum()) / len(own)
    loss = distillation_loss(student, teacher, MixedTask(task), temperature=2.0, weight=3.0)
    wanted = total + 3 * float(kd_kl(own, taught, 2.0))
    assert loss(batch, 0, 1).item() == pytest.approx(wanted, rel=1e-5)  # float32 against float64
    alone = distillation_loss(student, None, MixedTask(task))
    assert alone(batch, 0, 1).item() == pytest.approx(total, rel=1e-5)


class Counting(nn.Module):
    """A teacher that keeps what it is asked in batches of training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.asked = model, list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 2:
            self.asked.append(x)
        return self.model(x)


@pytest.fixture
def teacher(net):
    return Counting(net(width=12)).eval()


def test_student_and_teacher_see_the_same_mixed_view(net, teacher, task, data):
    seen: list[Tensor] = []
    student = net()
    student.register_forward_pre_hook(lambda m, args: seen.append(args[0]) if m.training else None)
    distil(student, teacher, task, data, **(ON | {"epochs": 1}))
    laid = [batch.inputs for batch in served(data)]
    for views in (seen, teacher.asked):
        assert all(torch.equal(view, inputs) for view, inputs in zip(views, laid, strict=True))


def test_training_is_the_same_bit_for_bit_online_cold_and_warm(net, teacher, task, data, tmp_path):
    found, asked, mixup = [], [], {"mixup": 0.4}
    caches = [None, TeacherCache(folder=tmp_path), TeacherCache(folder=tmp_path)]
    for cache in caches:
        teacher.asked.clear()
        states: list[TrainState] = []
        distil(net(), teacher, task, data, cache=cache, checkpoint=states.append, **(OPTIONS | mixup))
        found.append(dict(states[-1].model))
        asked.append(len(teacher.asked))
    assert asked == [18, 18, 0]
    assert same(found[0], found[1])
    assert same(found[0], found[2])


def test_replayed_logits_equal_fresh_ones_bit_for_bit_and_belong_to_partner_and_share(
    teacher, task, data, tmp_path
):
    training, batches = Training(**ON), served(data, 1)

    def answered(given: list[Mixed]) -> list[Tensor]:
        made = Teaching(teacher, MixedTask(task), data, training, TeacherCache(folder=tmp_path))
        return [taught.logits for taught in made.along(iter(given), 1) if isinstance(taught, Taught)]

    with torch.no_grad():
        own = [teacher(batch.inputs.to(memory_format=torch.channels_last)) for batch in batches]
    first = answered(batches)
    teacher.asked.clear()
    for fresh, replayed, computed in zip(first, answered(batches), own, strict=True):
        assert torch.equal(fresh, computed)
        assert torch.equal(replayed, computed)
    assert not teacher.asked
    answered([batches[0]._replace(share=0.5), *batches[1:]])
    assert len(teacher.asked) == 1
    answered([batches[0]._replace(partners=batches[0].partners[::-1]), *batches[1:]])
    assert len(teacher.asked) == 2


def test_a_resumed_run_mixes_as_the_whole_one_did(net, teacher, task, data):
    states: list[TrainState] = []
    distil(net(), teacher, task, data, checkpoint=states.append, **ON)
    whole, states[1:] = dict(states[-1].model), []
    distil(net(), teacher, task, data, resume=states[0], checkpoint=states.append, **ON)
    assert same(whole, dict(states[-1].model))
    with pytest.raises(UsageError, match=r"mixup was 0\.4 and is now 0\.2"):
        distil(net(), teacher, task, data, resume=states[0], **(ON | {"mixup": 0.2}))


@pytest.mark.parametrize(
    ("inputs", "targets", "why"),
    [
        (
            {"ids": torch.zeros(2, 3, dtype=torch.long)},
            torch.zeros(2, dtype=torch.long),
            "its inputs are dict",
        ),
        (torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, dtype=torch.long), "a tensor of torch.int64"),
        (torch.zeros(2, 3), torch.zeros(2), "not one class number per example"),
        (torch.zeros(2, 3), torch.zeros(2, dtype=torch.bool), "are true or false, not one class number"),
        (torch.zeros(2, 3), torch.zeros(2, 5, dtype=torch.long), "not one class number per example"),
    ],
)
def test_what_cannot_be_mixed_is_refused_before_training(task, inputs, targets, why):
    class Odd:
        def n(self, split: str) -> int:
            return 2

        def batches(self, split: str, batch_size: int, **_: Any) -> list[Any]:
            return [(inputs, targets)]

    with pytest.raises(UsageError, match=rf"mixup \(0\.4\).*'tiny'.*{why}.*Use mixup=0"):
        mixing(task, Odd(), Training(**ON))
    assert mixing(task, Odd(), Training(**OPTIONS)) is task


def test_answers_by_position_are_refused(task, data):
    class Sequences(type(task)):
        def positions(self, logits: Tensor, batch: Any) -> Tensor:
            raise AssertionError

        answers = truths = positions

    with pytest.raises(UsageError, match="answers by position have no one label"):
        mixing(Sequences(), data, Training(**ON))


@pytest.mark.parametrize("step", [distil, recover])
@pytest.mark.parametrize("loss", ["dkd", find_loss("dkd")])
def test_a_loss_that_needs_the_right_class_is_refused_before_anything_runs(
    net, teacher, task, data, step, loss
):
    student = net()
    before = {name: t.clone() for name, t in student.state_dict().items()}
    student.register_forward_pre_hook(lambda *_: pytest.fail("it ran"))
    with pytest.raises(UsageError, match=r"^loss dkd needs one class per example, and mixup gives two"):
        step(student, teacher, task, data, loss=loss, **ON)
    assert not teacher.asked
    assert same(before, student.state_dict())


def test_a_mixed_batch_has_no_right_class_for_a_loss_of_ones_own_loop(net, task, data):
    loss = distillation_loss(net(), net(width=12), MixedTask(task), loss="dkd")
    with pytest.raises(UsageError, match=r"'dkd' needs one class number.*mixup=0"):
        loss(served(data)[0], 0, 1)


@pytest.mark.parametrize("value", [-0.1, 101.0, float("nan"), float("inf")])
def test_alphas_that_cannot_be_are_refused(value):
    with pytest.raises(UsageError, match=r"mixup must be in \[0, 100\]"):
        Training(epochs=1, mixup=value)


def test_a_recipe_with_dkd_and_mixup_is_refused():
    given = {
        "task": "image-classification",
        "model": "hf:somewhere",
        "data": "somewhere",
        "budget": "macs<=0.5x",
    }
    with pytest.raises(UsageError, match=r"steps\.recover: loss dkd needs one class per example"):
        Recipe.of({**given, "steps": {"recover": {"loss": "dkd", "mixup": 0.2}}})
