"""Components that took the place of others, fitted alone and in closed form to what those gave."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import AdjustComponent, Plan, UsageError
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._refit import Sums, refit
from penjing.surgery import told

HELD = 4  # every fourth batch chooses the ridge
CLOSE = 1e-4  # of the largest output: what a layer may differ from its whole component by


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One adjustment and its new layer: which share of the variance of what was there it missed before and misses
    after, over all positions; where nothing was fitted both are None and `why` says why.
    """

    says: str
    before: float | None = None
    after: float | None = None
    why: str = ""


def fit_adjusted(
    model: nn.Module, slim: nn.Module, plan: Plan, batches: Sequence[Any], *, inputs: Any = None
) -> tuple[Fitted, ...]:
    """Refit, in place, the last layer of every component that `plan` put in the place of others in `slim`.

    Its weights W and bias b become the ridge regression of what the original component gave, y, on what the layer
    reads in the slim network: argmin sum |W phi + b - y|^2 + r |W - W_0|^2, W_0 the weights that it has, r the ridge
    that serves every fourth batch best. One adjustment after the other, so that later ones make up for earlier ones.
    `batches` are unlabelled inputs, or anything of which `inputs(batch)` gives them; positions of pictures count one
    by one. Says nothing about the accuracy of the whole.

    Raises `UsageError` for plans that do more than adjust (fit before units are removed) and where there is no batch.
    """
    edits = [edit for edit in plan.edits if isinstance(edit, AdjustComponent)]
    if len(edits) < len(plan.edits):
        raise UsageError("the plan does more than adjust components: fit them first, then remove units")
    if not batches:
        raise UsageError("batches is empty: give a list of inputs, 100 examples or more")
    given = [place(batch if inputs is None else inputs(batch), device_of(slim)) for batch in batches]
    with kept_modes(model, slim):
        model.eval()
        slim.eval()
        return tuple(_fit(model, slim, edit, given) for edit in edits)


def _fit(model: nn.Module, slim: nn.Module, edit: AdjustComponent, batches: Sequence[Any]) -> Fitted:
    says, last = told(edit), edit.modules[-1]
    layers = [m for path in edit.modules for m in slim.get_submodule(path).modules() if _fits(m)]
    known = dict(model.named_modules())
    if last not in known or not layers:
        return Fitted(
            says=says, why="it replaces what another adjustment made" if layers else "it has no layer to fit"
        )
    layer, sums = layers[-1], (Sums(), Sums())
    for number, batch in enumerate(batches):
        old, new = known[last], slim.get_submodule(last)
        with torch.no_grad(), _heard(old) as wanted, _heard(new) as whole, _heard(layer) as own:
            call(model, batch)
            call(slim, batch)
        if not wanted or len(own) != 1:
            return Fitted(says=says, why="it does not run once in a forward")
        why = _unfit(own[0][1], whole[0][1], wanted[0][1])
        if why:
            return Fitted(says=says, why=why)
        held = number % HELD == HELD - 1
        sums[held].add(_positions(layer, own[0][0]), _outputs(layer, wanted[0][1]))
    return _written(layer, sums, says)


def _written(layer: Any, sums: tuple[Sums, Sums], says: str) -> Fitted:
    groups = getattr(layer, "groups", 1)
    rows = layer.weight.detach().reshape(groups, len(layer.weight) // groups, -1)
    bias = layer.bias.detach().double().view(groups, -1) if layer.bias is not None else None
    found = refit(rows, *sums, offset=bias is not None, bias=bias)
    if found.after < found.before:
        with torch.no_grad():
            layer.weight.copy_(found.weight.reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(found.offset.flatten())
    return Fitted(says=says, before=found.before, after=min(found.before, found.after))


def _fits(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)


def _unfit(own: Tensor, whole: Tensor, wanted: Tensor) -> str:
    if own.shape != wanted.shape:
        return f"it gives {tuple(own.shape)} where {tuple(wanted.shape)} was given"
    if own.shape != whole.shape or (own - whole).abs().max() > CLOSE * own.abs().max():
        return "something follows the layer in its place"
    return ""


def _positions(layer: Any, x: Tensor) -> Tensor:
    """What the layer multiplies, [groups, positions, d]."""
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1]).float()
    flat = isinstance(layer, nn.Conv1d)
    pads = [(0, *layer.padding) if flat else layer.padding, (1, *layer.dilation) if flat else layer.dilation]
    sizes = [
        (1, *layer.kernel_size) if flat else layer.kernel_size,
        (1, *layer.stride) if flat else layer.stride,
    ]
    columns = F.unfold(
        x.unsqueeze(2) if flat else x, sizes[0], dilation=pads[1], padding=pads[0], stride=sizes[1]
    )
    found = columns.transpose(1, 2).reshape(-1, layer.groups, columns.shape[1] // layer.groups)
    return found.transpose(0, 1).float()


def _outputs(layer: Any, y: Tensor) -> Tensor:
    """What it should give, [groups, positions, out]."""
    if isinstance(layer, nn.Linear):
        return y.reshape(1, -1, y.shape[-1]).float()
    rows = y.flatten(2).transpose(1, 2).reshape(-1, layer.groups, y.shape[1] // layer.groups)
    return rows.transpose(0, 1).float()


@contextmanager
def _heard(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Inputs and outputs of the module's calls."""
    found: list[tuple[Tensor, Tensor]] = []

    def hear(_: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        found.append((given[0].detach(), result.detach()))

    handle = module.register_forward_hook(hear)
    try:
        yield found
    finally:
        handle.remove()
