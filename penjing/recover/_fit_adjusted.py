"""Components that took the place of others, fitted alone and in closed form to what those gave."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import AdjustComponent, Plan, UsageError
from penjing.recover._columns import columns
from penjing.recover._modules import call, device_of, kept_modes, place
from penjing.recover._refit import Sums, refit
from penjing.recover._whiten import whiten
from penjing.surgery import told

HELD = 4  # every fourth batch chooses the ridge
CLOSE = 1e-4  # of the largest output: what a layer may differ from its whole component by


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One adjustment and its new layer: which share of the variance of what was there it missed before and misses
    after, over all positions (None where that cannot be told); where nothing was fitted `why` says why.
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
    found = []
    for edit in edits:
        why = (
            ""
            if edit.modules[-1] in dict(model.named_modules())
            else "it replaces what another adjustment made"
        )
        fitted = Fitted(says=told(edit), why=why)
        found.append(
            fitted if why else fit_one(model, slim, edit, given, given_by(model, edit.modules[-1], given))
        )
    return tuple(found)


def given_by(model: nn.Module, path: str, batches: Sequence[Any]) -> list[Tensor] | None:
    """What a module gives in eval mode for every batch; None where it does not run once in a forward."""
    module, found = model.get_submodule(path), list[Tensor]()
    with kept_modes(model), torch.no_grad():
        model.eval()
        for batch in batches:
            with _heard(module) as calls:
                call(model, batch)
            if len(calls) != 1:
                return None
            found.append(calls[0][1])
    return found


def fit_one(
    model: nn.Module,
    slim: nn.Module,
    edit: AdjustComponent,
    batches: Sequence[Any],
    wanted: Sequence[Tensor] | None,
) -> Fitted:
    """Refit the last layer of what `edit` made in `slim`, in place, to `wanted`: what stood there in `model` gave it
    for each batch. Layers whose results are added up are fitted together, low-rank factors are first whitened.
    """
    says = told(edit)
    if wanted is None:
        return Fitted(says=says, why=_OFTEN)
    whiten(model, slim, edit, batches)
    whole = slim.get_submodule(edit.modules[-1])
    layers = _last_layers(slim, edit)
    why = "" if layers else "it has no layer to fit"
    sums, missed = (Sums(), Sums()), _Missed()
    with kept_modes(slim), torch.no_grad(), ExitStack() as hearing:
        slim.eval()
        heard = [hearing.enter_context(_heard(module)) for module in (whole, *layers)]
        for number, (batch, target) in enumerate(zip(batches, wanted, strict=True)):
            for calls in heard:
                calls.clear()
            call(slim, batch)
            if any(len(calls) != 1 for calls in heard):
                return Fitted(says=says, why=_OFTEN)
            (_, given), *own = (calls[0] for calls in heard)
            missed.add(given, target)
            why = why or _unfit(sum(result for _, result in own), given, target)
            if not why:
                phi = [
                    _positions(layer, _spread(x, target)) for layer, (x, _) in zip(layers, own, strict=True)
                ]
                sums[number % HELD == HELD - 1].add(torch.cat(phi, 2), _outputs(layers[0], target))
    if why:
        return Fitted(says=says, before=missed.share, after=missed.share, why=why)
    return _written(layers, sums, says)


def _last_layers(slim: nn.Module, edit: AdjustComponent) -> list[Any]:
    """The layer that gives the result, or those that give it together."""
    made = slim.get_submodule(edit.modules[-1])
    named = [getattr(made, name) for name in getattr(made, "summed", ())]
    if named:
        return [layer for layer in named if layer is not None]
    return [m for path in edit.modules for m in slim.get_submodule(path).modules() if _fits(m)][-1:]


def _spread(x: Tensor, target: Tensor) -> Tensor:
    """What a layer reads once for all positions, at each of them."""
    alone = x.dim() == target.dim() == 3 and x.shape[1] == 1
    return x.expand(-1, target.shape[1], -1) if alone else x


_OFTEN = "it does not run once in a forward"


class _Missed:
    """The share of the variance that is missed, over all batches; None where shapes differ."""

    def __init__(self) -> None:
        self.sums: list[tuple[float, float]] = []
        self.alike = True

    def add(self, given: Tensor, wanted: Tensor) -> None:
        self.alike = self.alike and given.shape == wanted.shape and given.is_floating_point()
        if self.alike:
            around = wanted - wanted.mean()
            self.sums.append((float((given - wanted).square().sum()), float(around.square().sum())))

    @property
    def share(self) -> float | None:
        whole = sum(energy for _, energy in self.sums)
        return sum(error for error, _ in self.sums) / whole if self.alike and whole else None


def _written(layers: Sequence[Any], sums: tuple[Sums, Sums], says: str) -> Fitted:
    groups = getattr(layers[0], "groups", 1)
    rows = [one.weight.detach().reshape(groups, len(one.weight) // groups, -1) for one in layers]
    bias = next((one.bias for one in layers if one.bias is not None), None)
    now = None if bias is None else bias.detach().double().view(groups, -1)
    found = refit(torch.cat(rows, 2), *sums, offset=bias is not None, bias=now)
    if found.after < found.before:
        with torch.no_grad():
            parts = found.weight.split([one.shape[2] for one in rows], 2)
            for one, part in zip(layers, parts, strict=True):
                one.weight.copy_(part.reshape(one.weight.shape))
            if bias is not None:
                bias.copy_(found.offset.flatten())
    return Fitted(says=says, before=found.before, after=min(found.before, found.after))


def _fits(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d)


def _unfit(own: Any, whole: Tensor, wanted: Tensor) -> str:
    if own.shape != wanted.shape:
        return f"it gives {tuple(own.shape)} where {tuple(wanted.shape)} was given"
    if own.shape != whole.shape or (own - whole).abs().max() > CLOSE * own.abs().max():
        return "something follows the layer in its place"
    return ""


def _positions(layer: Any, x: Tensor) -> Tensor:
    """What the layer multiplies, [groups, positions, d]."""
    groups, found = getattr(layer, "groups", 1), columns(layer, x)
    return found.reshape(len(found), groups, -1).transpose(0, 1).float()


def _outputs(layer: Any, y: Tensor) -> Tensor:
    """What it should give, [groups, positions, out]."""
    if isinstance(layer, nn.Linear):
        return y.reshape(1, -1, y.shape[-1]).float()
    rows = y.flatten(2).transpose(1, 2).reshape(-1, layer.groups, y.shape[1] // layer.groups)
    return rows.transpose(0, 1).float()


@contextmanager
def _heard(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """First tensors of inputs and outputs of the module's calls."""
    found: list[tuple[Tensor, Tensor]] = []

    def hear(_: nn.Module, given: tuple[Any, ...], named: Any, result: Any) -> None:
        source = next(t for t in (*given, *named.values()) if isinstance(t, Tensor))
        target = result if isinstance(result, Tensor) else next(t for t in result if isinstance(t, Tensor))
        found.append((source.detach(), target.detach()))

    handle = module.register_forward_hook(hear, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()
