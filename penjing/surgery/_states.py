"""The tensors a proof runs on: the original's own where they show a difference, random ones where they hide it."""

from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core._plan import Plan
from penjing.structure import copied, drop_caches, every_path, first_paths, loose_modules, together
from penjing.surgery._precision import Precision
from penjing.surgery._rescale import scaled, scalings
from penjing.surgery._slices import slice_tensor

SAMPLE = 512  # elements of a tensor that are looked at first
BLOCK = 1 << 16  # elements that are looked at together where those are alike
_FLOATS = frozenset(
    d for d in vars(torch).values() if isinstance(d, torch.dtype) and (d.is_floating_point or d.is_complex)
)
FAINT = 1e-3
_NO_TENSORS = frozenset({bool, int, float, str, type(None), tuple, list, set, dict, OrderedDict})


def visible_states(
    model: nn.Module, precision: Precision, read: Container[str], *, thorough: bool = False
) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """Parameters and buffers by first name, those that are `read` or absent (meta).

    Constant, tiny, infinite or absent ones are replaced by random ones in the proof's precision, whose names come
    second. `thorough` looks for infinities everywhere.
    """
    states = {name: dense(tensor.detach()) for name, tensor in _held(model) if name in read or tensor.is_meta}
    hidden = {name: states[name] for name in _hidden(states, thorough)}
    return {**states, **_random(hidden, precision)}, frozenset(hidden)


def _held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, then buffers, then plain tensor attributes, each once, by first name."""
    kinds: tuple[dict[int, tuple[str, torch.Tensor]], ...] = ({}, {}, {})
    for path, module in first_paths(every_path(model)):
        prefix, inside = f"{path}." if path else "", module.__dict__
        plain = torch.Tensor in map(type, inside.values())
        for kind, found in zip(
            kinds, (inside["_parameters"], inside["_buffers"], inside if plain else {}), strict=True
        ):
            for name, tensor in found.items():
                if tensor is not None and (found is not inside or _is_plain(tensor)):
                    kind.setdefault(id(tensor), (prefix + name, tensor))
    return (entry for kind in kinds for entry in kind.values())


def _is_plain(value: Any) -> bool:
    return type(value) is torch.Tensor and value.dtype in _FLOATS


def _hidden(states: Mapping[str, torch.Tensor], thorough: bool) -> list[str]:
    """Tensors whose own values do not tell their indices apart."""
    found = [name for name, tensor in states.items() if tensor.is_meta]
    real = {n: t for n, t in states.items() if t.is_floating_point() and t.numel() and not t.is_meta}
    for (name, tensor), spread in zip(real.items(), _spreads([*real.values()]), strict=True):
        shown = spread > FAINT or (tensor.numel() > SAMPLE and _varies(tensor))
        if not shown or (thorough and not torch.isfinite(tensor).all()):
            found.append(name)
    return found


def dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _spreads(tensors: Sequence[torch.Tensor]) -> list[float]:
    """The standard deviation of each tensor's first elements, in one pass; a single number's size."""
    if not tensors:
        return []
    parts = [_flat(t)[:SAMPLE].cpu() for t in tensors]
    sizes = np.array([len(part) for part in parts])
    numbers, starts = torch.cat(parts).double().numpy(), np.cumsum(sizes) - sizes
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.where(sizes > 1, np.add.reduceat(numbers, starts) / sizes, 0.0)
        squares = np.add.reduceat((numbers - np.repeat(means, sizes)) ** 2, starts)
        spreads = np.sqrt(squares / np.maximum(sizes - 1, 1))
    return np.where(np.isfinite(spreads), spreads, 0.0).tolist()


def _varies(tensor: torch.Tensor) -> bool:
    """Whether the standard deviation of a tensor, or of a part of it, is more than faint."""
    flat = _flat(tensor)
    if len(flat) > BLOCK and flat[:: len(flat) // SAMPLE | 1].double().std().item() > FAINT:
        return True
    least, most = flat.aminmax()
    if not most.double() - least.double() > FAINT:
        return False
    around, total, squares = flat[0].double(), 0.0, 0.0
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK].double() - around
        total, squares = total + block.sum().item(), squares + block.square_().sum().item()
        count = min(start + BLOCK, len(flat))
        if squares - total * total / count > FAINT**2 * (count - 1):
            return True
    return False


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All elements in the order in which they lie in memory."""
    if not tensor.is_contiguous():
        strides = tensor.stride()
        tensor = tensor.permute(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))
    return tensor.reshape(-1)


def _random(tensors: Mapping[str, torch.Tensor], precision: Precision) -> dict[str, torch.Tensor]:
    """Random numbers in the place of tensors: factors around 1 where the name says so, small ones elsewhere."""
    generator = torch.Generator().manual_seed(0)
    length = sum(t.numel() for t in tensors.values() if t.dim() < 2)
    small = torch.randn(length, generator=generator).to(precision.dtype).mul_(0.2)
    factors = 1 + small.clamp(-0.6, 0.6)
    found: dict[str, torch.Tensor] = {}
    start = 0
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            found[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
            continue
        if tensor.dim() > 1:
            width = tensor.numel() / max(1, tensor.shape[0])
            drawn = (
                torch.randn(tensor.shape, generator=generator)
                .to(precision.dtype)
                .div_(max(1.0, width) ** 0.5)
            )
        else:
            stop = start + tensor.numel()
            around_one = name.endswith(("weight", "var", "gamma"))
            drawn = (factors if around_one else small)[start:stop].view(tensor.shape)
            start = stop
        found[name] = drawn if tensor.is_meta else drawn.to(tensor.device)
    return found


def precise_copy(
    slim: nn.Module,
    states: Mapping[str, torch.Tensor],
    hidden: frozenset[str],
    plan: Plan,
    precision: Precision,
) -> nn.Module:
    """A copy of `slim` in the proof's precision. Its tensors are its own, but slices of `states` where the original's
    are hidden or the plan scales them (with the proof's precision here).
    """
    removed, factors = plan.removed, scalings(plan)
    memo: dict[int, Any] = {}
    plain: list[torch.Tensor] = []
    for name, tensor in _held(slim):
        if name in states and (name in hidden or name in factors):
            lost = removed.get(name, {})
            twin = precision.cast(slice_tensor(states[name].detach(), lost, name))
            if name in factors:
                twin = precision.cast(scaled(twin, factors[name], lost))
            memo[id(tensor)] = _like(tensor, twin)
        else:
            plain.append(tensor)
    for tensor, twin in zip(plain, together(plain, precision.dtypes), strict=True):
        memo[id(tensor)] = _like(tensor, twin)
    small = copied(slim, memo)
    for module, traced in zip(small.modules(), slim.modules(), strict=True):
        if isinstance(module, nn.RMSNorm) and isinstance(traced, nn.RMSNorm) and module.eps is None:
            dtype = traced.weight.dtype if traced.weight is not None else torch.get_default_dtype()
            module.eps = torch.finfo(dtype).eps  # None means the eps of the dtype: it is part of the network
        for name, value in module.__dict__.items():
            if (
                type(value) not in _NO_TENSORS
                and isinstance(value, torch.Tensor)
                and value.is_floating_point()
            ):
                module.__dict__[name] = precision.cast(value)
    for module in (*loose_modules(small), *([small] if _imprecise(small, precision) else ())):
        module._apply(precision.cast)
    drop_caches(small.modules())
    return small.eval() if any(m.training for m in small.modules()) else small


def _like(tensor: torch.Tensor, twin: torch.Tensor) -> torch.Tensor:
    """The twin as a parameter where the tensor is one."""
    kind = type(tensor)
    learned = kind is not torch.Tensor and (kind is nn.Parameter or isinstance(tensor, nn.Parameter))
    return nn.Parameter(twin, False) if learned and twin.is_floating_point() else twin


def _imprecise(small: nn.Module, precision: Precision) -> bool:
    return any(tensor.dtype in precision.dtypes for _, tensor in _held(small))
