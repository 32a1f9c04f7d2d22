"""What a distillation becomes where nothing is asked, and that it says so."""

import pytest
import torch

import penjing as pj
from penjing.recover import RECOVER, TrainState, distil, recover
from penjing.recover._choice import Situation, choose_loss

OPTIONS = {"epochs": 2, "batch_size": 16, "lr": 3e-3}


@pytest.mark.parametrize(
    ("about", "loss"),
    [
        ({"classes": 2}, "kl"),
        ({"classes": 4}, "kl"),
        ({"classes": 5}, "standardized-kl"),
        ({"classes": 100, "pruned": True}, "kl"),
        ({"classes": 100, "numbered": False}, "kl"),
        ({"classes": 100, "errors": (0.30, 0.10)}, "dist"),
        ({"classes": 100, "errors": (0.12, 0.10)}, "standardized-kl"),
        ({"classes": 100, "errors": (0.02, 0.01)}, "standardized-kl"),
        ({"classes": 4, "errors": (0.30, 0.10)}, "kl"),
    ],
)
def test_the_loss_follows_classes_and_strength(about, loss):
    chosen, why = choose_loss(Situation(**({"numbered": True, "batch_size": 64, "pruned": False} | about)))
    assert chosen == loss
    assert why


class Sure(torch.nn.Module):
    """Answers right in every case: it looks for the bright quadrant."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(20.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        four = torch.nn.functional.avg_pool2d(x, 4).flatten(1) * self.scale
        return torch.cat((four, torch.full_like(four, -9.0)), dim=1)


def test_a_much_stronger_teacher_is_met_with_dist_from_batches_of_64(net, task, data):
    said: list[str] = []
    fit = distil(net(classes=8), Sure(), task, data, say=said.append, **(OPTIONS | {"batch_size": 64}))
    assert (fit.chosen["loss"], fit.chosen["temperature"], fit.chosen["weight"]) == ("dist", 1.0, 2.0)
    assert fit.notes == tuple(said)
    assert "the teacher is much stronger" in said[0]
    small = distil(net(classes=8), Sure(), task, data, **OPTIONS)
    assert small.chosen["loss"] == "standardized-kl"
    assert small.chosen["weight"] == 9.0


def test_what_is_asked_stays(net, task, data):
    options = {"loss": "dkd", "temperature": 3.0, "weight": 0.5, "hidden": 0.0}
    fit = distil(net(), net(width=12), task, data, **options, **OPTIONS)
    assert fit.notes == ()
    assert fit.chosen == options
    half = distil(net(), net(width=12), task, data, loss="dkd", hidden=0.0, weight=2.0, **OPTIONS)
    assert half.chosen == {"loss": "dkd", "temperature": 4.0, "weight": 2.0, "hidden": 0.0}
    assert half.notes == ("chosen: temperature 4",)


def test_a_pruned_student_says_what_it_was_cut_from(net, task, data):
    teacher = net()
    images = next(iter(data.batches("selection", 4)))[0]
    slim, plan = pj.prune(teacher, images, ratio=0.5)
    fit = recover(slim, teacher, task, data, plan=plan, **OPTIONS)
    assert "cut from the teacher" in fit.notes[0]
    assert RECOVER.hidden == "auto"


def test_a_resumed_run_keeps_its_choice(net, task, data):
    states: list[TrainState] = []
    options = OPTIONS | {"batch_size": 64}
    whole = net(classes=8)
    distil(whole, Sure(), task, data, checkpoint=states.append, **options)
    resumed = net(classes=8)
    resumed.load_state_dict(whole.state_dict())  # no longer the weaker one that the choice was made for
    fit = distil(resumed, Sure(), task, data, resume=states[0], **options)
    assert fit.chosen["loss"] == "dist"
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))


def test_without_a_teacher_nothing_is_chosen(net, task, data):
    fit = recover(net(), None, task, data, **OPTIONS)
    assert fit.notes == ()
