"""What survives surgery, and that the original never notices."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import penjing as pj

EXAMPLE = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(24, 4)
    )


def snapshot(model: nn.Module) -> list[Any]:
    """Everything a caller could notice: identities, values, attributes, hooks, modes, gradients."""
    found: list[Any] = []
    for path, module in model.named_modules():
        plain = {k: v for k, v in module.__dict__.items() if isinstance(v, (int, float, str, tuple, bool))}
        types = {k: [type(i) for i in v] for k, v in plain.items() if isinstance(v, tuple)}
        hooks = {k: dict(v) for k, v in module.__dict__.items() if "hooks" in k}
        found.append((path, type(module), plain, types, {k: type(v) for k, v in plain.items()}, hooks))
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        grad = None if tensor.grad is None else (id(tensor.grad), tensor.grad.clone().tolist())
        found.append((name, id(tensor), tensor.data_ptr(), tensor.tolist(), tensor.requires_grad, grad))
    return found


def test_the_original_is_untouched_by_every_verb():
    model = network().train()
    model[1].eval()
    model[0].register_forward_hook(lambda m, a, o: None)
    model[3].weight.requires_grad_(False)
    model(EXAMPLE).sum().backward()
    before, rng = snapshot(model), torch.random.get_rng_state()
    pj.trace(model, EXAMPLE)
    assert snapshot(model) == before
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    assert snapshot(model) == before
    pj.verify(model, slim, plan, EXAMPLE)
    pj.apply(model, plan)
    assert snapshot(model) == before
    assert torch.equal(rng, torch.random.get_rng_state())


def test_a_failing_forward_leaves_the_network_alone():
    model = network()
    before = snapshot(model)
    with pytest.raises(pj.TraceError, match="0"):
        pj.trace(model, torch.randn(1, 5, 6, 6))
    assert snapshot(model) == before


def test_global_settings_are_put_back():
    def settings() -> tuple[object, ...]:
        fast = torch.backends.mha.get_fastpath_enabled()
        return torch.get_default_dtype(), torch.is_grad_enabled(), fast

    before = settings()
    model = network()
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    pj.verify(model, slim, plan, EXAMPLE)
    assert settings() == before


def test_apply_equals_slim_and_shares_no_memory():
    model = network()
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    again = pj.apply(model, pj.Plan.from_json(plan.to_json()))
    assert type(slim) is type(model)
    assert slim.state_dict().keys() == again.state_dict().keys()
    for name, tensor in slim.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    ours = {t.data_ptr() for t in slim.state_dict().values()}
    assert not ours & {t.data_ptr() for t in model.state_dict().values()}


def test_records_follow_the_tensors():
    slim, _ = pj.prune(network(), EXAMPLE, ratio=0.5)
    assert (slim[0].in_channels, slim[0].out_channels) == (3, 4)
    assert slim[1].num_features == 4
    assert (slim[3].in_channels, slim[3].out_channels) == (4, 3)
    assert (slim[5].in_features, slim[5].out_features) == (12, 4)
    slim.train()(EXAMPLE)
    assert "Conv2d(4, 3," in repr(slim)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype):
    model = network().to(dtype)
    slim, plan = pj.prune(model, EXAMPLE.to(dtype), ratio=0.5)
    assert {p.dtype for p in slim.parameters()} == {dtype}
    assert pj.verify(model, slim, plan, EXAMPLE.to(dtype)).passed
    assert slim.eval()(EXAMPLE.to(dtype)).dtype is dtype


def test_memory_format_flags_modes_and_hooks_are_kept():
    model = network().to(memory_format=torch.channels_last)
    model.train()
    model[1].eval()
    model[3].weight.requires_grad_(False)
    seen = []
    model[2].register_forward_hook(lambda m, a, out: seen.append(out.shape[1]))
    model[0].note = {"kept": [1, 2]}  # type: ignore[assignment]
    slim, _ = pj.prune(model, EXAMPLE, ratio=0.5)
    assert slim[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not slim[0].weight.is_contiguous()
    assert [m.training for m in slim.modules()] == [m.training for m in model.modules()]
    assert [p.requires_grad for p in slim.parameters()] == [p.requires_grad for p in model.parameters()]
    assert slim[0].note == {"kept": [1, 2]}
    seen.clear()
    slim(EXAMPLE)
    assert seen == [4]


def test_tied_weights_stay_tied_under_every_name():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(9, 8), nn.Linear(8, 9, bias=False)
            self.out.weight = self.embed.weight
            self.hidden = nn.Linear(8, 8)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.out(self.hidden(F.relu(self.embed(ids))))

    model, ids = Tied(), torch.arange(6).view(2, 3)
    slim, plan = pj.prune(model, ids, ratio=0.5)
    assert slim.out.weight is slim.embed.weight
    assert plan.removed["out.weight"] == plan.removed["embed.weight"]
    assert slim.embed.embedding_dim == slim.out.in_features == slim.hidden.in_features == 4
    slim.out(torch.randn(1, 4)).sum().backward()
    assert slim.embed.weight.grad is not None


def test_a_shared_module_is_one_module():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    shared = nn.Conv2d(8, 8, 1)
    model.append(shared).append(nn.ReLU()).append(shared).append(nn.Conv2d(8, 2, 1))
    slim, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    assert slim[2] is slim[4]
    assert plan.removed["2.weight"] == plan.removed["4.weight"]
    assert pj.verify(model, slim, plan, EXAMPLE).passed


def test_networks_on_meta_can_be_traced_pruned_and_applied():
    with torch.device("meta"):
        model = network()
    slim, plan = pj.prune(model, EXAMPLE.to("meta"), ratio=0.5, criterion="random")
    assert all(p.is_meta for p in slim.parameters())
    real = network()
    assert pj.verify(real, pj.apply(real, plan), plan, EXAMPLE).passed


def test_a_plain_tensor_attribute_is_no_obstacle():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.mix = nn.Linear(5, 8), nn.Linear(8, 3), torch.eye(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(F.relu(self.a(x))) @ self.mix

    model = Scaled()
    slim, plan = pj.prune(model, torch.randn(2, 5), ratio=0.5)
    assert not plan.skipped
    assert slim.a.out_features == 4


def test_applying_does_not_change_a_copy_made_before():
    model = network()
    twin = copy.deepcopy(model)
    _, plan = pj.prune(model, EXAMPLE, ratio=0.5)
    a, b = pj.apply(model, plan).eval(), pj.apply(twin, plan).eval()
    assert torch.equal(a(EXAMPLE), b(EXAMPLE))


def test_a_plan_for_separate_tensors_is_refused_where_they_are_tied():
    def network(tied: bool) -> nn.Module:
        model = nn.ModuleDict(
            {"a": nn.Linear(6, 8), "b": nn.Linear(6, 8), "c": nn.Linear(8, 3), "d": nn.Linear(8, 3)}
        )
        if tied:
            model["b"].weight = model["a"].weight
        model.forward = lambda x: model["c"](model["a"](x)) + model["d"](model["b"](x).tanh())  # type: ignore[assignment]
        return model.eval()

    torch.manual_seed(0)
    _, plan = pj.prune(network(False), torch.randn(2, 6), ratio=0.5)
    with pytest.raises(pj.PlanError, match="belongs to another network"):
        pj.apply(network(True), plan)
