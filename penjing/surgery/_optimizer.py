"""Optimizer state follows the kept slices."""

import copy
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
    theirs = {id(p): name for name, p in model.named_parameters()}
    ours = dict(slim.named_parameters(remove_duplicate=False))
    removed = plan.removed
    held = [p for group in optimizer.param_groups for p in group["params"]]
    foreign = sum(id(p) not in theirs for p in held)
    if foreign:
        raise UsageError(
            f"{foreign} of the optimizer's {len(held)} parameters are not this model's: pass the model it trains"
        )
    if hasattr(optimizer, "_params"):
        raise UsageError(
            f"{type(optimizer).__name__} keeps its state across parameters: make a new one over slim"
        )
    dropped = tuple(f"{path}." for path in plan.dropped)
    merged = [
        theirs[id(p)] for p in held if theirs[id(p)] not in ours and not theirs[id(p)].startswith(dropped)
    ]
    if merged:
        raise UsageError(
            f"{merged[0]!r} is merged into a plain weight in slim, and its state cannot follow: make a new optimizer "
            "over slim.parameters()"
        )
    memo: dict[int, Any] = {}
    vanished: list[torch.Tensor] = []
    for parameter in held:
        name = theirs[id(parameter)]
        if name not in ours:
            vanished.append(parameter)
            continue
        memo[id(parameter)] = ours[name]
        for value in optimizer.state.get(parameter, {}).values():
            if not isinstance(value, torch.Tensor) or value.numel() == 1:
                continue
            if value.shape != parameter.shape:
                raise UsageError(
                    f"{type(optimizer).__name__} keeps a state of shape {tuple(value.shape)} for {name!r}, which "
                    "cannot follow its slices: make a new optimizer over slim"
                )
            memo[id(value)] = slice_tensor(value, removed.get(name, {}), name)
    memo.update({id(p): p for p in vanished})
    mapped = copy.deepcopy(optimizer, memo)
    gone = {id(p) for p in vanished}
    for group in mapped.param_groups:
        group["params"] = [p for p in group["params"] if id(p) not in gone]
    for parameter in vanished:
        mapped.state.pop(parameter, None)
    return mapped
