"""One network per op: pruned, proven, and equal to the original with zeroed slices."""

import pytest
import torch
from op_networks import FOLLOWED, OP_BUILDERS, STAYS
from test_laws_networks import outputs, zeroed

import penjing as pj


@pytest.mark.parametrize("name", sorted(OP_BUILDERS))
def test_an_op_lets_its_dims_go_or_names_why_not(name: str):
    case = OP_BUILDERS[name](8)
    case.model.eval()
    structure = pj.trace(case.model, case.example)
    slim, plan = pj.prune(case.model, case.example, ratio=0.5, criterion="random")
    assert not plan.skipped
    assert set(case.shrinks) <= set(plan.removed)
    assert pj.verify(case.model, slim, plan, case.example).passed
    if case.zeroing:
        ours, theirs = outputs(slim, case.example), outputs(zeroed(case.model, plan), case.example)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    if name in STAYS:
        assert "a.weight" not in plan.removed
        causes = {f.cause for f in structure.frozen if f.parameter == "a.weight" and f.dim == 0}
        assert causes
        assert all(cause.startswith("the network: ") for cause in causes), causes


def test_followed_and_kept_ops_are_told_apart():
    assert not FOLLOWED.keys() & STAYS.keys()
