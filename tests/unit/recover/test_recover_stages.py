"""Convolutional networks matched by stages: found, paired by resolution, compared on the channels that stayed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import penjing as pj
from penjing.core import TrainingError, UsageError
from penjing.recover import (
    TrainState,
    distil,
    distillation_loss,
    find_layers,
    hidden_distance,
    match,
    recover,
)

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = (X, torch.tensor([0, 1]))


class Gated(nn.Module):
    """A residual block with a gate per channel, whose maps of one place are no stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.gate = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        return x + y * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(y, 1)))


class Staged(nn.Module):
    def __init__(self, width: int = 8, stages: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(stages - 1))
        self.blocks = nn.ModuleList(Gated(width) for _ in range(stages))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks[0](self.stem(x))
        for down, block in zip(self.down, list(self.blocks)[1:], strict=True):
            x = block(F.relu(down(x)))
        return self.head(x.mean((2, 3)))


def staged(seed: int = 0, **options: int) -> Staged:
    torch.manual_seed(seed)
    return Staged(**options).eval()


def test_a_stage_is_what_is_finished_last_at_its_resolution():
    layers = find_layers(staged(), X)
    assert layers is not None
    assert layers.outputs == ("blocks.0", "blocks.1", "blocks.2")
    assert layers.grids == ((16, 16), (8, 8), (4, 4))
    assert layers.widths == (8, 8, 8)


def test_a_module_that_runs_twice_is_no_stage():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.again = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.again(self.again(self.one(x))).mean((2, 3))

    layers = find_layers(Twice(), X)
    assert layers is not None
    assert layers.outputs == ("one",)


def test_channels_that_come_last_are_not_taken_for_places():
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Linear(3, 12)

        def forward(self, x: Tensor) -> Tensor:
            return self.mix(x.permute(0, 2, 3, 1)).mean((1, 2))

    assert find_layers(Last(), X) is None


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_a_pruned_student_is_compared_with_the_channels_it_kept(task, ratio):
    teacher = staged()
    with torch.no_grad():  # channels that are silent on any data must not be taken for removed ones
        teacher.stem.bias.fill_(-100.0)
        for down in teacher.down:
            down.bias.fill_(-100.0)
    slim, plan = pj.prune(teacher, X, ratio=ratio)
    matching = match(slim, teacher, task, BATCH, hidden=1.0, plan=plan)
    assert len(matching.pairs) == 3
    for place, pair in enumerate(matching.pairs):
        removed = plan.removed[f"blocks.{place}.norm.weight"][0]
        assert pair.how == "kept"
        assert pair.kept is not None
        assert set(range(8)) - set(pair.kept.tolist()) == set(removed)


def test_the_term_is_the_mean_over_stages(task):
    student, teacher = staged(1), staged(0)
    plain = distillation_loss(student, teacher, task)(BATCH, 0, 1).item()
    matching = match(student, teacher, task, BATCH, hidden=0.5, attention=2.0)
    value = distillation_loss(student, teacher, task, matching=matching)(BATCH, 0, 1).item()
    seen: list[list[Tensor]] = []
    for model in (student, teacher):
        found: list[Tensor] = []
        hooks = [
            b.register_forward_hook(lambda _, __, out, found=found: found.append(out)) for b in model.blocks
        ]
        with torch.no_grad():
            model(X)
        seen.append(found)
        for hook in hooks:
            hook.remove()
    apart = maps = 0.0
    for own, other in zip(*seen, strict=True):
        apart += float((own - other).square().sum() / other.square().sum()) / 3
        flat = [F.normalize(x.square().sum(1).flatten(1), dim=1) for x in (own, other)]
        maps += float((flat[0] - flat[1]).square().sum(1).mean()) / 3
    assert value == pytest.approx(plain + 0.5 * apart + 2.0 * maps, rel=1e-5)


@pytest.mark.parametrize(
    ("how", "stages"), [("uniform", ["0", "1", "2"]), ("middle", ["1"]), ("last", ["2"])]
)
def test_other_widths_get_a_regressor_and_stages_go_by_resolution(task, how, stages):
    matching = match(staged(1, width=6), staged(0), task, BATCH, hidden=1.0, hidden_layers=how, seed=5)
    assert [pair.student.split(".")[1] for pair in matching.pairs] == stages
    assert {pair.how for pair in matching.pairs} == {"mapped"}
    assert [tuple(p.shape) for p in matching.maps.parameters()] == [(8, 6), (8,)] * len(stages)
    shallow = match(staged(1, stages=2), staged(0), task, BATCH, hidden=1.0)
    assert [(pair.student, pair.teacher) for pair in shallow.pairs] == [
        ("blocks.0", "blocks.0"),
        ("blocks.1", "blocks.1"),
    ]


OPTIONS = {"epochs": 2, "batch_size": 16, "lr": 1e-2}


class Pictured(nn.Module):
    """`Staged` for the one channel of the tiny data."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = Staged(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.expand(-1, 3, -1, -1))


def pictured(width: int, seed: int) -> Pictured:
    torch.manual_seed(seed)
    return Pictured(width).eval()


@pytest.mark.parametrize("loss", ["hints", "attention-transfer", "relational", "hidden"])
@pytest.mark.parametrize("width", [6, 8])
def test_losses_on_streams_train_and_resume_exactly(task, data, loss, width):
    states: list[TrainState] = []
    teacher, student = pictured(8, 0), pictured(width, 1)
    before = copy.deepcopy(student)
    distil(student, teacher, task, data, loss=loss, checkpoint=states.append, **OPTIONS)
    assert not torch.equal(states[-1].model["body.stem.weight"], before.body.stem.weight)
    stored = TrainState.from_parts(states[0].to_tensors(), states[0].to_json())
    distil(before, teacher, task, data, loss=loss, resume=stored, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), student.parameters(), strict=True))


def test_recovery_draws_stages_nearer_than_answers_alone(task, data):
    teacher = pictured(8, 0)
    distil(teacher, pictured(8, 3), task, data, epochs=3, batch_size=16, lr=1e-2)
    images = next(iter(data.batches("selection", 16)))[0]
    slim, plan = pj.prune(teacher, images, ratio=0.5)

    def apart(model: nn.Module) -> float:
        seen = []
        for network in (model, teacher):
            hook = network.body.blocks[2].register_forward_hook(lambda _, __, out: seen.append(out))
            with torch.no_grad():
                network.eval()(images)
            hook.remove()
        kept = match(slim, teacher, task, (images, None), hidden=1.0, plan=plan).pairs[2].kept
        own, other = (x.flatten(2).transpose(1, 2) for x in seen)
        return float(hidden_distance(own, other[..., kept]))

    plain, drawn = copy.deepcopy(slim), copy.deepcopy(slim)
    recover(plain, teacher, task, data, hidden=0.0, plan=plan, **OPTIONS)
    recover(drawn, teacher, task, data, hidden=3.0, plan=plan, **OPTIONS)
    assert apart(drawn) < 0.7 * apart(plain)


def test_stages_beside_layers_and_padded_inputs_are_refused(task):
    class Layered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.ModuleList(nn.Linear(48, 48) for _ in range(2))
            self.head = nn.Linear(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).transpose(1, 2)[..., :1].expand(-1, -1, 48)
            for layer in self.body:
                x = layer(x)
            return self.head(x.mean(1))

    with pytest.raises(UsageError, match="The student has stages and the teacher layers"):
        match(staged(), Layered(), task, BATCH, hidden=1.0)

    class Masked(Staged):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return super().forward(x)

    padded = ((X, torch.tensor([[1, 1, 1], [1, 1, 0]])), BATCH[1])
    with pytest.raises(UsageError, match="which places of a stage"):
        match(Masked(), Masked(), task, padded, hidden=1.0)
    with pytest.raises(UsageError, match="16x16"):
        match(staged(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), task, BATCH, hidden=1.0)


def test_a_loss_that_leaves_the_numbers_names_its_part_epoch_and_batch(task, data):
    def broken(signals):
        return signals.student.sum() * (float("nan") if signals.progress > 0.5 else 1.0)

    with pytest.raises(
        TrainingError, match=r"epoch 2, batch 2 \(step 8\).*the distance .*broken.* is nan"
    ) as said:
        distil(pictured(6, 1), pictured(8, 0), task, data, loss=broken, **OPTIONS)
    assert "the task's own loss is nan" not in str(said.value)
