"""What a network carries beside its weights comes along; averages and schedules follow."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel

import penjing as pj

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)
        self.register_buffer("gain", torch.rand(8), persistent=False)
        self.register_buffer("steps", torch.tensor(3), persistent=True)
        self.notes = {"made": ["by", 1]}
        self.label = "net"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.n(self.a(x))) * self.gain[:, None, None]
        return self.head(self.b(x).mean((2, 3)))


def test_hooks_of_every_kind_come_along():
    model = Net().eval()
    seen: list[str] = []
    model.a.register_forward_pre_hook(lambda m, a: seen.append("pre"))
    model.a.register_forward_hook(lambda m, a, k, o: seen.append("forward"), with_kwargs=True)
    model.a.register_full_backward_hook(lambda m, i, o: seen.append("backward"))
    model.b.register_full_backward_pre_hook(lambda m, o: seen.append("before backward"))
    model.register_state_dict_pre_hook(lambda m, p, k: seen.append("state"))
    slim, plan = pj.prune(model, X, ratio=0.5)
    seen.clear()
    slim(X.clone().requires_grad_()).sum().backward()
    slim.state_dict()
    assert seen == ["pre", "forward", "before backward", "backward", "state"]
    assert pj.verify(model, slim, plan, X).passed


def test_a_hook_that_changes_what_passes_is_part_of_the_network():
    model = Net().eval()
    model.a.register_forward_hook(lambda m, a, out: out * 2)
    slim, plan = pj.prune(model, X, ratio=0.5)
    assert not plan.skipped
    assert pj.verify(model, slim, plan, X).passed
    assert slim.a.out_channels == 4


def test_buffers_attributes_and_persistence_come_along():
    model = Net().eval()
    slim, plan = pj.prune(model, X, ratio=0.5)
    kept = [i for i in range(8) if i not in plan.removed["gain"][0]]
    assert torch.equal(slim.gain, model.gain[kept])
    assert "gain" not in slim.state_dict()
    assert slim.steps.item() == 3
    assert slim.notes == model.notes
    assert slim.notes is not model.notes
    assert slim.label == "net"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_reduced_precision_network_trains_on(dtype: torch.dtype):
    model = Net().to(dtype)
    slim, plan = pj.prune(model, X.to(dtype), ratio=0.5)
    assert pj.verify(model, slim, plan, X.to(dtype)).passed
    slim(X.to(dtype)).float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype is dtype for p in slim.parameters())


def test_modes_of_every_submodule_come_along():
    model = Net().train()
    model.n.eval()
    slim, _ = pj.prune(model, X, ratio=0.5)
    assert [m.training for m in slim.modules()] == [m.training for m in model.modules()]


def test_an_average_of_weights_follows_by_the_same_plan():
    model = Net().eval()
    average = AveragedModel(model)
    for _ in range(2):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        average.update_parameters(model)
    _, plan = pj.prune(model, X, ratio=0.5)
    slim = pj.apply(average.module, plan)
    kept = [i for i in range(8) if i not in plan.removed["a.bias"][0]]
    assert torch.equal(slim.a.bias, average.module.a.bias[kept])
    assert pj.verify(average.module, slim, plan, X).passed


def test_a_schedule_goes_on_over_the_remapped_optimizer():
    model = Net()
    optimizer = SGD(model.parameters(), lr=1.0, momentum=0.9)
    schedule = StepLR(optimizer, 2, gamma=0.1)
    for _ in range(3):
        model(X).sum().backward()
        optimizer.step()
        schedule.step()
    slim, plan = pj.prune(model, X, ratio=0.5)
    mapped = pj.remap_optimizer(optimizer, model, slim, plan)
    again = StepLR(mapped, 2, gamma=0.1)
    again.load_state_dict(copy.deepcopy(schedule.state_dict()))
    slim(X).sum().backward()
    mapped.step()
    again.step()
    schedule.step()
    assert again.get_last_lr() == schedule.get_last_lr()


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (f(x).unflatten(-1, (2, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v).sum((1, 3))


def test_factors_planned_on_meta_are_applied_to_weights_that_come_later():
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        empty = Attending()
    _, plan = pj.prune(empty, x.to("meta"), ratio=0.5, criterion="random", granularity=("head_dim",))
    torch.manual_seed(0)
    model = Attending().eval()
    slim = pj.apply(model, plan)
    assert slim.q.weight.shape == (8, 16)
    kept = [i for i in range(16) if i not in plan.removed["q.weight"][0]]
    factor = (slim.q.weight / model.q.weight[kept]).mean().item()
    assert factor == pytest.approx(0.5**0.25)  # half of the factor on q, half on k: sdpa scales both
    assert pj.verify(model, slim, plan, x).passed


class Remembering(nn.Module):
    """Keeps the features of its last forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv3d(3, 8, 1), nn.Conv3d(8, 2, 1)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.features = self.a(x)
        self.seen.append(self.features)
        return self.b(self.features.relu())


def test_what_a_learning_forward_left_behind_is_no_obstacle():
    model, example = Remembering(), torch.randn(1, 3, 4, 4, 4)
    model(example).sum().backward()
    slim, plan = pj.prune(model, example, ratio=0.5)
    assert pj.verify(model, slim, plan, example).passed
    assert model.features.grad_fn is not None
    assert slim.features.grad_fn is None
    assert slim.seen[0] is slim.features


def test_volumes_stay_channels_last_and_marks_on_parameters_come_along():
    model, example = Remembering().to(memory_format=torch.channels_last_3d), torch.randn(1, 3, 4, 4, 4)
    model.a.weight.no_decay = model.b.bias.no_decay = True
    slim, _ = pj.prune(model, example, ratio=0.5)
    assert slim.b.weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert slim.a.weight.no_decay
    assert slim.b.bias.no_decay
