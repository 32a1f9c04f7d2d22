import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.core import TrainingError, UsageError
from penjing.recover import (
    DISTIL,
    RECOVER,
    Signals,
    TeacherCache,
    Training,
    TrainState,
    _engine,
    distil,
    distillation_loss,
    evaluate,
    find_loss,
    kd_kl,
    recover,
    transfer,
)
from penjing.recover._bn import settle_bn
from penjing.recover._counting import sample
from penjing.recover._evaluate import Look, look
from penjing.recover._teachers import check_teacher
from penjing.tasks import image_classification

OPTIONS = {"epochs": 3, "batch_size": 16, "augment": "noise", "lr": 3e-3}


def tensors(model):
    return {name: t.detach().clone() for name, t in (*model.named_parameters(), *model.named_buffers())}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def teacher(net, task, data):
    model = net(width=16)
    transfer(model, task, data, head="head", epochs=6, batch_size=16, lr=1e-2)
    return model


def test_the_loss_is_task_loss_plus_weighted_distance(net, teacher, task, data):
    student, batch = net(), next(iter(data.batches("train", 16)))
    value = distillation_loss(student, teacher, task, temperature=3.0, weight=2.0)(batch, 0, 10).item()
    own, taught = student(batch[0]).detach(), teacher(batch[0]).detach()
    assert value == pytest.approx(float(task.loss(own, batch) + 2 * kd_kl(own, taught, 3.0)), rel=1e-6)


def test_the_guide_is_full_at_the_first_step_and_gone_at_the_last(net, teacher, task, data):
    student, batch = net(), next(iter(data.batches("train", 16)))
    loss = distillation_loss(student, teacher, task, weight=0.0, guide="teacher-guided", guide_alpha=0.5)
    own, taught = student(batch[0]).detach(), teacher(batch[0]).detach()
    assert loss(batch, 0, 10).item() == pytest.approx(float(task.loss(own + 0.5 * taught, batch)), rel=1e-6)
    assert loss(batch, 9, 10).item() == float(task.loss(own, batch))


@pytest.mark.parametrize("guide", ["none", "teacher-guided"])
def test_a_student_learns_and_the_teacher_stays(net, teacher, task, data, guide):
    before, student = tensors(teacher), net()
    teacher.train()
    fit = distil(student, teacher, task, data, guide=guide, **OPTIONS)
    assert fit.model is student
    assert fit.selection["accuracy"] > fit.start["accuracy"] + 0.2
    assert same(tensors(teacher), before)
    assert all(module.training for module in teacher.modules())


def test_a_student_that_only_matches_the_teacher_comes_close_to_it(net, teacher, task, data):
    class Silent(type(task)):
        def loss(self, outputs, batch):
            return super().loss(outputs, batch) * 0.0

    def distance(model):
        with torch.no_grad():
            images, _ = data._make("selection")
            return float(kd_kl(model(images), teacher(images), 1.0))

    student = net()
    before = distance(student)
    distil(student, teacher, Silent(), data, weight=1.0, **(OPTIONS | {"epochs": 6, "lr": 1e-2}))
    assert distance(student) < 0.5 * before


def test_both_see_the_same_view(net, teacher, task, data):
    seen = {"student": [], "teacher": []}
    student = net()
    student.register_forward_pre_hook(lambda m, args: seen["student"].append(args[0]) if m.training else None)
    distil(student, Recording(teacher, seen["teacher"]), task, data, **(OPTIONS | {"epochs": 1}))
    assert len(seen["student"]) == 6
    views = seen["teacher"][-len(seen["student"]) :]
    assert all(torch.equal(a, b) for a, b in zip(seen["student"], views, strict=True))


class Recording(torch.nn.Module):
    def __init__(self, model, seen):
        super().__init__()
        self.model, self.seen = model, seen

    def forward(self, x):
        self.seen.append(x)
        return self.model(x)


def test_a_loss_of_ones_own_is_called_with_signals(net, teacher, task, data):
    progress = []

    def distance(signals):
        progress.append(signals.progress)
        assert signals.student.requires_grad
        assert not signals.teacher.requires_grad
        assert signals.temperature == 4.0
        return (signals.student - signals.teacher).pow(2).mean()

    distil(net(), teacher, task, data, loss=distance, temperature=4.0, **OPTIONS)
    assert progress == sorted(progress)
    assert progress[0] == 0.0
    assert progress[-1] == pytest.approx(17 / 18)


@pytest.mark.parametrize("step", [distil, recover])
def test_a_teacher_of_other_classes_is_refused(net, task, data, step):
    student = net()
    before = tensors(student)
    with pytest.raises(UsageError, match=r"teacher gives 7 classes and the student 4.*Transfer the teacher"):
        step(student, net(classes=7), task, data, **OPTIONS)
    assert same(tensors(student), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "teacher"}, "guide must be one of none, teacher-guided"),
        ({"temperature": 0.0}, r"temperature must be in \[0\.01, 1000\], not 0\.0"),
        ({"temperature": 1e30}, r"temperature must be in \[0\.01, 1000\], not 1e\+30"),
        ({"temperature": float("nan")}, "temperature must be in"),
        ({"temperature": "hot"}, "temperature must be in .*'hot'"),
        ({"weight": -1.0}, "weight must be at least 0 and finite"),
        ({"weight": float("inf")}, "weight must be at least 0 and finite, not inf"),
        ({"guide_alpha": float("nan")}, "guide_alpha must be at least 0 and finite"),
        ({"hidden": float("nan")}, "hidden must be at least 0 and finite"),
        ({"attention": -1.0}, "attention must be at least 0 and finite"),
        ({"lr": float("inf")}, "lr must be above 0 and finite"),
        ({"loss": "kll"}, "Did you mean 'kl'"),
        ({"temprature": 2.0}, "Unknown training option 'temprature'"),
    ],
)
def test_options_that_cannot_work_say_so(net, teacher, task, data, options, message):
    with pytest.raises(UsageError, match=message):
        distil(net(), teacher, task, data, **(OPTIONS | options))


def test_a_network_cannot_teach_itself(net, task, data):
    model = net()
    with pytest.raises(UsageError, match=r"copy\.deepcopy"):
        recover(model, model, task, data, **OPTIONS)


@pytest.mark.parametrize("wrapped", ["teacher", "student"])
def test_networks_that_share_weights_cannot_teach_each_other(net, task, data, wrapped):
    model = net()
    pair = (
        (model, torch.nn.Sequential(model)) if wrapped == "teacher" else (torch.nn.Sequential(model), model)
    )
    with pytest.raises(UsageError, match=r"share \d+ tensors.*(head|blocks).*copy\.deepcopy"):
        distil(*pair, task, data, **OPTIONS)


def test_networks_may_share_what_does_not_learn_but_no_running_statistics(net, task, data):
    frozen = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(4))
    frozen(task.inputs(sample(data)))
    frozen.requires_grad_(False)
    check_teacher(frozen, torch.nn.Sequential(frozen), task, data)
    norm = torch.nn.BatchNorm2d(3, affine=False)
    pair = (torch.nn.Sequential(norm, net()), torch.nn.Sequential(norm, net()))
    with pytest.raises(UsageError, match=r"share 2 tensors.*'0\.running_mean'"):
        distil(*pair, task, data, **OPTIONS)


class Answering(torch.nn.Module):
    """Another network's answers, changed."""

    def __init__(self, model, how):
        super().__init__()
        self.model, self.how = model, how

    def forward(self, x):
        return self.how(x, self.model(x))


def too_small(x, answers):
    raise AssertionError("Input size (8) doesn't match model (16)")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda x, y: (y, y), r"teacher answers with tuple.*'tiny' finds tuple.*task's logits\(\)"),
        (lambda x, y: {"logits": y}, "teacher answers with dict"),
        (lambda x, y: y[:, 0], r"teacher answers with Tensor.*a tensor of shape \[2\]"),
        (lambda x, y: y[:, None].expand(-1, 5, -1), r"shape \[2, 5, 4\] and the student's \[2, 4\]"),
        (lambda x, y: y / 0 * 0, "teacher answers NaN on the first two examples.*batch-norm statistics"),
        (too_small, r"cannot read the student's inputs \(AssertionError.*same input size"),
        (lambda x, y: {}["pixels"], r"cannot read the student's inputs \(KeyError"),
    ],
)
def test_a_teacher_whose_answers_cannot_be_used_is_refused_before_training(net, task, data, how, message):
    student = net()
    with pytest.raises(UsageError, match=message):
        distil(student, Answering(net(width=12), how), task, data, **OPTIONS)
    assert same(tensors(student), tensors(net()))


@pytest.mark.parametrize("how", [lambda x, y: (y, y), lambda x, y: {"logits": y}])
def test_answers_in_which_the_task_finds_logits_teach_as_bare_ones_do(net, data, how):
    task, found = image_classification(), []
    for teacher in (net(width=12), Answering(net(width=12), how)):
        student = net()
        distil(student, teacher, task, data, **OPTIONS)
        found.append(tensors(student))
    assert same(*found)


def test_answers_in_which_the_task_finds_no_logits_are_said_to_be_the_teachers(net, data):
    teacher = Answering(net(width=12), lambda x, y: {"out": y})
    with pytest.raises(
        UsageError, match=r"The teacher's answers cannot be read\. No logits in outputs of type dict"
    ):
        distil(net(), teacher, image_classification(), data, **OPTIONS)


def test_a_teacher_that_leaves_the_numbers_on_the_way_is_named(net, task, data):
    def late(x, y):
        return y if len(x) == 2 else y - float("inf")

    with pytest.raises(
        TrainingError, match=r"distance 'kl' to the teacher is nan.*the teacher's answers \("
    ) as said:
        distil(net(), Answering(net(width=12), late), task, data, **OPTIONS)
    assert "the student's answers" not in str(said.value)


class OneOutput:
    """A task of one number per example."""

    name = "one"

    def inputs(self, batch):
        return batch[0]

    def targets(self, batch):
        return batch[1]

    def logits(self, outputs):
        return outputs

    def loss(self, outputs, batch):
        return (outputs[:, 0] - batch[1]).square().mean()

    def metric(self, logits, targets):
        return {"accuracy": -float((logits[:, 0] - targets).square().mean())}


@pytest.mark.parametrize("loss", ["kl", "standardized-kl", "dist", "dkd"])
def test_one_output_has_no_probabilities_to_compare(net, data, loss):
    student, teacher = net(classes=1), net(width=12, classes=1)
    with pytest.raises(UsageError, match=r"networks with one output have none.*Use weight=0"):
        distil(student, teacher, OneOutput(), data, loss=loss, **OPTIONS)
    fit = distil(student, teacher, OneOutput(), data, **OPTIONS)
    assert fit.chosen["weight"] == 0
    assert "one output has no probabilities" in fit.notes[0]


@pytest.mark.parametrize("loss", ["kl", "standardized-kl", "dist", "dkd", "relational", "hidden"])
def test_a_last_batch_of_one_is_left_out(net, teacher, task, data, loss):
    data.examples = 33
    fit = distil(net(), teacher, task, data, loss=loss, **OPTIONS)
    assert len(fit.history) == 3
    assert all(math.isfinite(row["loss"]) for row in fit.history)


def hurt(model):
    """The model with batch-norm statistics that are far off, as after pruning."""
    slim = copy.deepcopy(model)
    for block in slim.blocks:
        block[1].running_mean.add_(3.0)
        block[1].running_var.mul_(9.0)
    return slim


def test_recovery_re_estimates_before_training(teacher, task, data):
    fit = recover(hurt(teacher), teacher, task, data, **(OPTIONS | {"epochs": 1}))
    assert fit.start["accuracy"] > fit.start["given_accuracy"] + 0.2
    errors = round(40 * (fit.start["accuracy"] - fit.selection["accuracy"]))  # of 40 examples
    assert errors <= 1  # more new errors than one are more than their own standard error


def rights(*numbers):
    return torch.tensor([number in numbers for number in range(40)])


@pytest.mark.parametrize(
    ("start", "later", "kept"),
    [
        (rights(*range(39)), rights(*range(36)), 0),  # 3 right before alone, none after alone: 3 > sqrt(3)
        (rights(*range(36)), rights(*range(33), 37, 38), 1),  # 3 before, 2 after: 1 <= sqrt(5)
        (rights(*range(36)), rights(*range(35)), 1),  # 1 <= sqrt(1)
        (rights(*range(36)), rights(*range(34)), 0),  # 2 > sqrt(2)
        (rights(*range(30)), rights(*range(31)), 1),  # better is better
    ],
)
def test_the_start_is_kept_only_where_it_is_clearly_better(
    net, teacher, task, data, monkeypatch, start, later, kept
):
    looks = iter([start, later])

    def seen(*_):
        right = next(looks)
        return Look({"accuracy": float(right.float().mean()), "loss": 1.0}, right)

    monkeypatch.setattr(_engine, "look", seen)
    fit = distil(net(), teacher, task, data, **(OPTIONS | {"epochs": 1}))
    assert fit.best_epoch == kept


def test_a_metric_asked_for_chooses_without_doubt(net, teacher, task, data, monkeypatch):
    looks = iter([0.5, 0.6])
    monkeypatch.setattr(_engine, "look", lambda *_: Look({"accuracy": 0.5, "loss": next(looks)}, right=None))
    fit = distil(net(), teacher, task, data, **(OPTIONS | {"epochs": 1, "monitor": "loss"}))
    assert fit.best_epoch == 0


def test_a_look_tells_who_was_right_where_accuracy_decides(net, task, data):
    found = look(net(), task, data, Training(epochs=1))
    assert float(found.right.float().mean()) == pytest.approx(found.figures["accuracy"])
    assert look(net(), task, data, Training(epochs=1, monitor="loss")).right is None


def test_re_estimation_that_does_not_help_is_taken_back(teacher, task, data):
    before, make = tensors(teacher), data._make

    def misleading(split):
        images, targets = make(split)
        return (torch.full_like(images, 50.0) if split == "train" else images), targets

    data._make = misleading
    given, kept = settle_bn(teacher, task, data, Training(epochs=1), examples=64)
    assert given == kept
    assert same(tensors(teacher), before)


def test_without_bn_nothing_is_re_estimated(teacher, task, data):
    fit = recover(hurt(teacher), teacher, task, data, bn_examples=0, **(OPTIONS | {"epochs": 1, "lr": 1e-9}))
    assert fit.start["accuracy"] == fit.start["given_accuracy"]


def test_recovery_beats_the_cut_and_reports_what_it_returns(teacher, task, data):
    slim = hurt(teacher)
    with torch.no_grad():
        slim.head.weight.mul_(torch.rand_like(slim.head.weight) > 0.5)
    fit = recover(slim, teacher, task, data, **OPTIONS)
    figures = evaluate(slim, task, data, "selection")
    assert figures["accuracy"] == pytest.approx(fit.selection["accuracy"])
    assert fit.selection["accuracy"] > fit.start["given_accuracy"]


def test_recovery_without_a_teacher_is_plain_training(net, task, data):
    fit = recover(net(), None, task, data, **OPTIONS)
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]


@pytest.mark.parametrize("step", [distil, recover])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_resuming_is_exact(teacher, task, data, step, ema):
    states, whole, options = [], hurt(teacher), OPTIONS | {"ema": ema, "guide": "teacher-guided"}
    fit = step(whole, teacher, task, data, checkpoint=states.append, **options)
    assert [state.epoch for state in states] == [1, 2, 3]
    for state in states:
        resumed = hurt(teacher)
        stored = TrainState.from_parts(state.to_tensors(), state.to_json())
        again = step(resumed, teacher, task, data, resume=stored, **options)
        assert same(tensors(resumed), tensors(whole))
        assert again.start == fit.start
        assert again.selection == fit.selection


def test_a_broken_loss_restores_the_student(net, teacher, task, data):
    student = net()
    with pytest.raises(TrainingError, match="distil became nan at epoch 1, batch 1"):
        distil(student, teacher, task, data, loss=lambda s: s.student.sum() * float("nan"), **OPTIONS)
    assert same(tensors(student), tensors(net()))


def test_defaults_are_what_the_functions_use(net, teacher, task, data):
    states = []
    distil(net(), teacher, task, data, checkpoint=states.append, **OPTIONS)
    kept = states[0].settings
    assert DISTIL.loss == DISTIL.temperature == DISTIL.weight == "auto"
    assert (kept["loss"], kept["temperature"], kept["weight"]) == ("kl", 2.0, 1.0)
    assert kept["weight_decay"] == DISTIL.training.weight_decay
    assert kept["optimizer"] == RECOVER.training.optimizer == "adamw"


class Maps:
    """A class for every place: logits [batch, classes, height, width], as torch's cross entropy takes them."""

    name = "maps"

    def inputs(self, batch: Any) -> Tensor:
        return batch[0]

    def targets(self, batch: Any) -> Tensor:
        return (batch[0][:, 0] > 0).long()

    def logits(self, outputs: Any) -> Tensor:
        return outputs

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(outputs, self.targets(batch))

    def metric(self, logits: Tensor, targets: Tensor) -> dict[str, Any]:
        return {"accuracy": float((logits.argmax(1) == targets).float().mean())}


def mapping(width: int, classes: int = 3) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1))


@pytest.mark.parametrize("loss", ["kl", "standardized-kl", "dist", "dkd"])
def test_of_maps_the_classes_are_compared_and_not_the_columns(data, loss):
    """Every place is an example: the same as a plain table of logits [places, classes]."""
    student, teacher, task = mapping(4), mapping(8), Maps()
    batch = next(iter(data.batches("train", 6)))
    found = distillation_loss(student, teacher, task, loss=loss, temperature=2.0, weight=1.0)(batch, 0, 1)
    own, taught = (net(batch[0]).permute(0, 2, 3, 1).reshape(-1, 3) for net in (student, teacher))
    shape = (6, 8, 8, 3) if loss == "dist" else own.shape
    own, taught = own.reshape(shape), taught.reshape(shape)
    told = Signals(student=own, teacher=taught, targets=task.targets(batch).flatten(), temperature=2.0)
    wanted = task.loss(student(batch[0]), batch) + find_loss(loss)(told)
    torch.testing.assert_close(found, wanted)  # fp32, sums in another order


def test_maps_of_other_numbers_of_classes_are_refused_and_their_cache_is_replayed(data, tmp_path):
    with pytest.raises(UsageError, match="gives 5 classes and the student 3"):
        distil(mapping(4), mapping(8, classes=5), Maps(), data, epochs=1)
    cached, online = mapping(4), mapping(4)
    options = {"epochs": 2, "views": 1, "channels_last": False}
    fit = distil(cached, mapping(8), Maps(), data, cache=TeacherCache(folder=tmp_path), **options)
    distil(online, mapping(8), Maps(), data, **options)
    assert "3 classes" in fit.notes[0]
    assert all(torch.equal(a, b) for a, b in zip(cached.parameters(), online.parameters(), strict=True))
    figures = evaluate(cached, Maps(), data, "selection")
    assert figures["predictions"].shape == figures["targets"].shape
    assert float((figures["predictions"] == figures["targets"]).float().mean()) == figures["accuracy"]
