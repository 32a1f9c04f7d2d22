"""Weights that a module computes from other parameters become plain parameters.

weight_norm, spectral_norm and every other parametrization compute a weight anew in each forward. A smaller network
has the computed weight itself: the function in eval mode is the same, and its rows and columns can go.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils import remove_spectral_norm, remove_weight_norm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from penjing.core._edits import MergeWeight
from penjing.core._plan import Plan
from penjing.structure._network._copying import copied
from penjing.structure._network._fingerprint import fingerprint
from penjing.structure._network._walk import each_path

_HOOKS: dict[type, str] = {WeightNorm: "weight_norm", SpectralNorm: "spectral_norm"}


def merge_weights(model: nn.Module) -> tuple[nn.Module, Plan | None]:
    """The network with computed weights merged into plain ones, and the plan that says so.

    It is a copy that shares every other tensor with `model`, which is left untouched; a network without computed
    weights is returned as it is, with no plan.
    """
    merges = tuple(_computed(model))
    if not merges:
        return model, None
    merged = copied(model, {id(t): t for t in _tensors(model)})
    for edit in merges:
        _merge(model.get_submodule(edit.module), merged.get_submodule(edit.module), edit)
    kinds = ", ".join(dict.fromkeys(edit.kind for edit in merges))
    policy = f"merged: {len(merges)} weights computed in the forward ({kinds}) are plain parameters now"
    return merged, Plan(edits=merges, fingerprint=fingerprint(model), policies=(policy,))


def _computed(model: nn.Module) -> Iterator[MergeWeight]:
    for path, module in each_path(model):
        for hook in module._forward_pre_hooks.values():
            if type(hook) in _HOOKS:
                yield MergeWeight(module=path, tensor=hook.name, kind=_HOOKS[type(hook)])  # type: ignore[attr-defined]
        for name, found in _parametrizations(module).items():
            yield MergeWeight(module=path, tensor=name, kind=_kind(found))


def _parametrizations(module: nn.Module) -> dict[str, ParametrizationList]:
    found = module._modules.get("parametrizations")
    return dict(found.items()) if isinstance(found, nn.ModuleDict) else {}  # type: ignore[arg-type]


def _kind(found: ParametrizationList) -> str:
    """The name PyTorch's own function has, or the class of the user's parametrization."""
    name = type(found[-1]).__name__
    return {"_WeightNorm": "weight_norm", "_SpectralNorm": "spectral_norm"}.get(name, name)


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Everything the copy shares: parameters, buffers, and what hooks left behind from the last forward."""
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        yield from (t for t in getattr(module, "_flat_weights", ()) if isinstance(t, torch.Tensor))
        for hook in module._forward_pre_hooks.values():
            held = module.__dict__.get(hook.name) if type(hook) in _HOOKS else None  # type: ignore[attr-defined]
            if isinstance(held, torch.Tensor):
                yield held


def _merge(original: nn.Module, twin: nn.Module, edit: MergeWeight) -> None:
    parametrized = _parametrizations(original).get(edit.tensor)
    if parametrized is not None:
        _merge_parametrization(parametrized, twin, edit.tensor)
        return
    source = "_g" if edit.kind == "weight_norm" else "_orig"
    learns = getattr(original, edit.tensor + source).requires_grad
    with torch.no_grad():
        (remove_weight_norm if edit.kind == "weight_norm" else remove_spectral_norm)(twin, edit.tensor)
    getattr(twin, edit.tensor).requires_grad_(learns)


def _merge_parametrization(found: ParametrizationList, twin: nn.Module, name: str) -> None:
    """`remove_parametrizations` for a copy: the class, which the copy shares with the original, stays as it is."""
    with torch.no_grad(), _evaluating(found):
        weight = found().detach().clone()
    originals = list(found.parameters(recurse=False))
    left = twin._modules["parametrizations"]
    assert isinstance(left, nn.ModuleDict)
    del left[name]
    if not len(left):
        del twin._modules["parametrizations"]
        twin.__class__ = type(twin).__bases__[0]
    value = nn.Parameter(weight, any(p.requires_grad for p in originals)) if originals else weight
    if originals:
        twin._parameters[name] = value  # type: ignore[assignment]
    else:
        twin._buffers[name] = value
    held = getattr(twin, "_flat_weights_names", ())
    if name in held:
        twin._flat_weights[held.index(name)] = value  # type: ignore[index,union-attr]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in module.modules()]
    for m, _ in modes:
        m.training = False
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
