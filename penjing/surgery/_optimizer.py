"""Optimizer state follows the kept slices."""

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from penjing.core import UsageError
from penjing.core._plan import Plan
from penjing.surgery._slices import slice_tensor


def remap_optimizer(optimizer: Optimizer, model: nn.Module, slim: nn.Module, plan: Plan) -> Optimizer:
    """A new optimizer over `slim`'s parameters; `optimizer` (over `model`'s) is left untouched.

    Groups, hyperparameters and step counts are kept; state tensors of a parameter's shape (momentum, second moments)
    are sliced like the parameter; parameters of dropped blocks vanish. Raises `UsageError` when the optimizer holds
    parameters that are not `model`'s.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    ours = dict(slim.named_parameters(remove_duplicate=False))
    held = [p for group in optimizer.param_groups for p in group["params"]]
    _refuse(optimizer, held, names, ours.keys(), plan)
    memo: dict[int, Any] = {}
    for parameter in held:
        name = names[id(parameter)]
        memo[id(parameter)] = ours.get(name, parameter)
        if name in ours:
            memo.update(_sliced(optimizer, parameter, plan.removed.get(name, {}), name))
    mapped = copy.deepcopy(optimizer, memo)
    return _without(mapped, [p for p in held if names[id(p)] not in ours])


def _refuse(
    optimizer: Optimizer,
    held: Sequence[torch.Tensor],
    names: Mapping[int, str],
    ours: Container[str],
    plan: Plan,
) -> None:
    """Raises `UsageError` where state cannot follow the parameters."""
    foreign = sum(id(p) not in names for p in held)
    if foreign:
        raise UsageError(
            f"{foreign} of the optimizer's {len(held)} parameters are not this model's: pass the model it trains"
        )
    if hasattr(optimizer, "_params"):
        raise UsageError(
            f"{type(optimizer).__name__} keeps its state across parameters: make a new one over slim"
        )
    dropped = tuple(f"{path}." for path in plan.dropped)
    vanished = [names[id(p)] for p in held if names[id(p)] not in ours]
    merged = [name for name in vanished if not name.startswith(dropped)]
    if merged:
        raise UsageError(
            f"{merged[0]!r} is merged or replaced in slim, and its state cannot follow: make a new optimizer "
            "over slim.parameters()"
        )


def _sliced(
    optimizer: Optimizer, parameter: torch.Tensor, lost: Mapping[int, tuple[int, ...]], name: str
) -> dict[int, torch.Tensor]:
    """What stands for each state tensor of a parameter, by identity."""
    found: dict[int, torch.Tensor] = {}
    for value in optimizer.state.get(parameter, {}).values():
        if not isinstance(value, torch.Tensor) or value.numel() == 1:
            continue
        if value.shape != parameter.shape:
            raise UsageError(
                f"{type(optimizer).__name__} keeps a state of shape {tuple(value.shape)} for {name!r}, which "
                "cannot follow its slices: make a new optimizer over slim"
            )
        found[id(value)] = slice_tensor(value, lost, name)
    return found


def _without(optimizer: Optimizer, vanished: Sequence[torch.Tensor]) -> Optimizer:
    gone = {id(p) for p in vanished}
    for group in optimizer.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in gone]
    for parameter in vanished:
        optimizer.state.pop(parameter, None)
    return optimizer
