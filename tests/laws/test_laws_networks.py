"""Prune small random networks around every construction; the result equals the original with zeroed slices.

The check uses nothing of the library but `plan.removed`: in float64 the smaller network and a copy of the original
whose removed slices are zero may differ by rounding alone (1e-9 of outputs of order 1).
"""

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import BUILDERS, Network
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

import penjing as pj

FEW = settings(
    max_examples=3,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def build(name: str, c: int) -> Network:
    torch.manual_seed(0)
    found = BUILDERS[name](c)
    for module in found.model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                nn.init.uniform_(tensor, 0.5, 1.5)
    found.model.eval()
    return found


def outputs(model: nn.Module, example: Any) -> list[torch.Tensor]:
    model = copy.deepcopy(model).double()
    example = tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, example)
    with torch.no_grad():
        if isinstance(example, dict):
            return tree_leaves(model(**example))
        return tree_leaves(model(*example) if isinstance(example, tuple) else model(example))


def zeroed(model: nn.Module, plan: pj.Plan) -> nn.Module:
    model = copy.deepcopy(model)
    states = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, dims in plan.removed.items():
            for dim, indices in dims.items():
                states[name].index_fill_(dim, torch.tensor(indices), 0)
    return model


@pytest.mark.parametrize("name", sorted(BUILDERS))
@FEW
@given(c=st.sampled_from((4, 8, 12)), ratio=st.floats(0.3, 0.75), seed=st.integers(0, 99))
def test_the_slim_network_equals_the_zeroed_original(name: str, c: int, ratio: float, seed: int):
    case = build(name, c)
    slim, plan = pj.prune(case.model, case.example, ratio=ratio, criterion="random", seed=seed)
    assert not plan.skipped
    assert set(case.shrinks) <= set(plan.removed)
    proof = pj.verify(case.model, slim, plan, case.example)
    assert proof.passed, proof.cause
    if case.zeroing:
        ours, theirs = outputs(slim, case.example), outputs(zeroed(case.model, plan), case.example)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_group_keeps_the_asked_share(name: str):
    """An index that two groups own must not be charged twice: half of the units means half."""
    case = build(name, 8)
    structure = pj.trace(case.model, case.example)
    slim, plan = pj.prune(case.model, case.example, ratio=0.5)
    before = {**dict(case.model.named_parameters()), **dict(case.model.named_buffers())}
    after = {**dict(slim.named_parameters()), **dict(slim.named_buffers())}
    for group in structure.groups:
        if group.granularity in ("channel", "neuron", "embed", "head"):
            slot = group.slots[0]
            owned = set(slot.index.ravel().tolist())
            lost = owned & set(plan.removed[slot.name][slot.dim])
            kept = max(1, math.floor(len(group) * 0.5 + 0.5))
            assert len(owned) - len(lost) == len(owned) * kept // len(group), group.name
    for name_, dims in plan.removed.items():
        shape = (
            [n - len(dims.get(d, ())) for d, n in enumerate(before[name_].shape)] if name_ in before else None
        )
        assert shape is None or list(after[name_].shape) == shape
