"""The peer's rows: torch-pruning's own importances and scopes, brought to the budget by bisection of its ratio.

As its examples do: one step of its pruner, the classifier left alone, the number of heads of every attention told to
it beforehand and written into the attention modules afterwards. What is done in its favour: its gradients come from
the same 512 examples as ours; the squared gradients of its Hessian are summed over 64 single examples here, because
its own `accumulate_grad` keeps those of the last one only; at least 10% of every layer stays in the global scopes, as
on our side; and its networks may have up to 1% more MACs than the budget.
"""

import copy
import fnmatch
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.engine import heads_of, tell_heads
from benchmarks.quality_ours import Cut, name_of
from benchmarks.quality_pairs import Case
from penjing.recover import call

OVER = 1.01  # of the budget
TRIES = 12
SINGLE = 64  # examples of the Hessian
FLOOR = 0.9  # the most that a global scope may take from one layer

SCOPES = {
    "uniform": {"global_pruning": False},
    "isomorphic": {"global_pruning": True, "isomorphic": True, "max_pruning_ratio": FLOOR},
    "global": {"global_pruning": True, "max_pruning_ratio": FLOOR},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One importance of torch-pruning in one of its scopes; `dims` narrows every head instead of removing heads."""

    importance: str
    scope: str
    inner: bool
    dims: bool = False
    round_to: int | None = None

    def cut(self, case: Case, budget: float) -> Cut:
        return Cut(model=_bisect(self, case, budget))

    def at(self, case: Case, prepared: nn.Module, ratio: float, heads: float | None = None) -> nn.Module:
        """A copy of the prepared network with about the share `ratio` of every dim gone, and `heads` of the heads."""
        import torch_pruning as tp

        model = _copied(prepared)
        count = heads_of(model)
        of_heads = ratio if heads is None else heads
        pruner = tp.pruner.BasePruner(
            model,
            case.example,
            importance=_importance(self.importance),
            pruning_ratio=ratio,
            round_to=self.round_to,
            ignored_layers=_ignored(model, case, self.inner),
            num_heads=count,
            prune_num_heads=bool(count) and not self.dims,
            prune_head_dims=self.dims,
            head_pruning_ratio=0.0 if self.dims else of_heads,
            in_channel_groups={},
            out_channel_groups={},
            **SCOPES[self.scope],
        )
        pruner.step()
        tell_heads(model, pruner.num_heads)
        with torch.no_grad():
            call(model, case.example)
        for parameter in model.parameters():
            parameter.grad = None
        return model.eval()


def _bisect(peer: Peer, case: Case, budget: float) -> nn.Module:
    """The largest network of at most 1% over the budget that its ratios give.

    Uniformly pruned heads leave all layers together, which leaps over many budgets: then one head more stays in each,
    and the ratio of the rest is searched again.
    """
    prepared = prepared_for(peer.importance, case)
    share, model, low = _search(lambda ratio: peer.at(case, prepared, ratio), case, budget)
    if share < budget and case.pair.heads and not peer.dims:
        with_heads = partial(peer.at, case, prepared, heads=low)
        again = _search(with_heads, case, budget, low)
        share, model, _ = max((share, model, low), again, key=lambda found: found[0])
    return model


def _search(
    at: Callable[[float], nn.Module], case: Case, budget: float, low: float = 0.0
) -> tuple[float, nn.Module, float]:
    """By bisection: share of the MACs, network, and the largest ratio met that was too small."""
    high, best, error = 1.0, None, None
    for _ in range(TRIES):
        ratio = (low + high) / 2
        try:
            model = at(ratio)
            share = case.ratio(model)
        except Exception as failure:  # whatever breaks in it, or in the network it leaves
            high, error = ratio, failure
            continue
        if share > budget * OVER:
            low = ratio
            continue
        high = ratio
        if best is None or share > best[0]:
            best = (share, model)
        if share >= budget:
            break
    if best is None:
        raise RuntimeError(f"no ratio reaches {budget:g}x ({error or 'nothing was pruned'})")
    return *best, low


def _importance(name: str) -> Any:
    import torch_pruning as tp

    made = {
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "l1": lambda: tp.importance.MagnitudeImportance(p=1, group_reduction="first"),
        "lamp": lambda: tp.importance.LAMPImportance(p=2),
        "fpgm": lambda: tp.importance.FPGMImportance(p=2),
        "taylor": lambda: tp.importance.GroupTaylorImportance(),
        "hessian": lambda: tp.importance.GroupHessianImportance(),
        "activation": lambda: tp.importance.ActivationImportance(p=2),
    }
    return made[name]()


def prepared_for(importance: str, case: Case) -> nn.Module:
    """A copy of the network with what the importance reads: gradients, their squares, activations."""
    if importance not in case.stored:
        model = case.copy().eval().requires_grad_(True)
        gather = {"taylor": _gradients, "hessian": _squares, "activation": _activations}.get(importance)
        if gather is not None:
            gather(model, case)
        case.stored[importance] = model
    return case.stored[importance]


def _gradients(model: nn.Module, case: Case) -> None:
    for batch in case.calibration():
        case.task.loss(call(model, case.task.inputs(batch)), batch).backward()


def _squares(model: nn.Module, case: Case) -> None:
    sums: dict[nn.Parameter, torch.Tensor] = {}
    for batch in case.calibration(SINGLE, 1):
        model.zero_grad(set_to_none=True)
        case.task.loss(call(model, case.task.inputs(batch)), batch).backward()
        for p in model.parameters():
            if p.grad is not None:
                sums[p] = sums.get(p, torch.zeros_like(p)) + p.grad.square()
    for p, total in sums.items():
        p.grad = total / SINGLE


def _activations(model: nn.Module, case: Case) -> None:
    batch = case.calibration(256, 256)[0]
    with _importance("activation").compute_importance(model), torch.no_grad():
        call(model, case.task.inputs(batch))


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy that keeps gradients."""
    made = copy.deepcopy(model)
    for p, original in zip(made.parameters(), model.parameters(), strict=True):
        p.grad = None if original.grad is None else original.grad.clone()
    return made


def _ignored(model: nn.Module, case: Case, inner: bool) -> list[nn.Module]:
    patterns: Sequence[str] = case.pair.stream if inner else ()
    return [
        module
        for path, module in model.named_modules()
        if path == case.head or any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
    ]


def _rows(importance: str, scope: str, inner: bool = False, dims: bool = False) -> tuple[str, Peer]:
    name = f"tp-{name_of(importance, scope, inner)}" + ("-dims" if dims else "")
    return name, Peer(importance=importance, scope=scope, inner=inner, dims=dims)


PEER: Mapping[str, Peer] = dict(
    [
        *(_rows(name, "uniform") for name in ("magnitude", "fpgm", "taylor", "hessian", "activation")),
        *(_rows(name, "isomorphic") for name in ("magnitude", "taylor", "hessian")),
        *(_rows(name, "global") for name in ("magnitude", "lamp", "taylor")),
        *(_rows(name, "uniform", inner=True) for name in ("magnitude", "taylor", "hessian")),
        _rows("taylor", "isomorphic", inner=True),
    ]
)
# Where there is attention: heads narrowed instead of removed, which is its default.
PEER_DIMS: Mapping[str, Peer] = dict(
    _rows(name, "uniform", inner=inner, dims=True)
    for name in ("magnitude", "taylor")
    for inner in (False, True)
)
