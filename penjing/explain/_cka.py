"""How alike two networks' inner states are, layer by layer."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from penjing.runtimes import as_call, untouched


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of features [n, p] and [n, q], in [0, 1] (Kornblith et al., "Similarity of neural
    network representations revisited", ICML 2019, equation 3 with the linear kernel).

    1 for features that differ by a rotation and a scale. It is dominated by the directions of largest variance, and
    says nothing about which examples are answered rightly. 0 where one does not vary.
    """
    x, y = (one.double() - one.double().mean(0, keepdim=True) for one in (a, b))
    n = len(x)
    if max(x.shape[1], y.shape[1]) > n:  # the same by Gram matrices
        left, right = x @ x.T, y @ y.T
        across, own = (left * right).sum(), left.norm() * right.norm()
    else:
        across, own = (x.T @ y).square().sum(), (x.T @ x).norm() * (y.T @ y).norm()
    return float(across / own) if own > 0 else 0.0


def shared_places(model: nn.Module, slim: nn.Module, most: int) -> tuple[str, ...]:
    """Modules that both have under one name and that hold others or compute with weights, evenly over the depth."""
    there = dict(slim.named_modules())
    found = [
        path
        for path, module in model.named_modules()
        if path in there and any(True for _ in module.parameters()) and not _repeats(model, path)
    ]
    if len(found) <= most:
        return tuple(found)
    return tuple(found[round(i * (len(found) - 1) / (most - 1))] for i in range(most))


def _repeats(model: nn.Module, path: str) -> bool:
    """The whole network, and containers, whose state is that of their last module."""
    module = model.get_submodule(path)
    return not path or isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def cka_by_depth(
    model: nn.Module, slim: nn.Module, batches: Sequence[Any], *, most: int = 24
) -> list[dict[str, Any]]:
    """For modules that both have, in order of the forward, the `linear_cka` of what they give, positions averaged."""
    places = shared_places(model, slim, most)
    left, right = (_features(network, places, batches) for network in (model, slim))
    return [{"module": path, "cka": linear_cka(left[path], right[path])} for path in left if path in right]


def _features(model: nn.Module, places: Iterable[str], batches: Sequence[Any]) -> dict[str, Tensor]:
    """By module, in the order in which they ran, what it gave, float32 [n, channels]."""
    found: dict[str, list[Tensor]] = {}

    def hook(path: str) -> Any:
        def hear(_: nn.Module, __: Any, result: Any) -> None:
            value = result if isinstance(result, Tensor) else _first(result)
            if value is not None and value.is_floating_point() and value.dim() >= 2:
                found.setdefault(path, []).append(_pooled(value.detach()))

        return hear

    handles = [model.get_submodule(path).register_forward_hook(hook(path)) for path in places]
    try:
        with untouched(model), torch.no_grad():
            model.eval()
            for batch in batches:
                args, kwargs = as_call(batch)
                model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return {path: torch.cat(parts) for path, parts in found.items() if len(parts) == len(batches)}


def _pooled(value: Tensor) -> Tensor:
    """Averaged over positions: dims after the channels of pictures, the middle dims of sequences."""
    if value.dim() == 2:
        return value.float()
    return value.float().flatten(2).mean(2) if value.dim() == 4 else value.float().flatten(1, -2).mean(1)


def _first(result: Any) -> Tensor | None:
    values = (
        result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else ()
    )
    return next((value for value in values if isinstance(value, Tensor)), None)
