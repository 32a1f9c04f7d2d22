"""The tensors a proof runs on: the original's own where they show a difference, random ones where they hide it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from penjing.core._plan import Plan
from penjing.structure import copied, loose_modules, plain_tensors
from penjing.surgery._precision import Precision
from penjing.surgery._rescale import scaled, scalings
from penjing.surgery._slices import slice_tensor

SAMPLE = 4096


def visible_states(model: nn.Module, precision: Precision) -> tuple[dict[str, torch.Tensor], frozenset[str]]:
    """Parameters and buffers by first name; constant, tiny, infinite or absent (meta) ones are replaced by random ones
    in the proof's precision, whose names come second.
    """
    generator = torch.Generator().manual_seed(0)
    plain = {name: tensor for name, _, _, tensor in plain_tensors(model)}
    states = {**dict(model.named_parameters()), **dict(model.named_buffers()), **plain}
    hidden = frozenset(name for name, tensor in states.items() if not _shows(tensor))
    found = {
        n: _random(n, t, generator).to(precision.dtype if t.is_floating_point() else t.dtype)
        if n in hidden
        else t.detach()
        for n, t in states.items()
    }
    return found, hidden


def _shows(tensor: torch.Tensor) -> bool:
    """Whether the tensor's own values tell its indices apart."""
    if tensor.is_meta:
        return False
    if not tensor.is_floating_point():
        return True
    data = tensor.detach()
    if not data.numel():
        return True
    if data.numel() == 1:
        return bool(torch.isfinite(data).all()) and data.double().abs().item() > 1e-3
    low, high = torch.aminmax(data)
    if not (torch.isfinite(low) and torch.isfinite(high)):
        return False
    sample = data.flatten()[:SAMPLE] if data.is_contiguous() else data
    return bool(sample.double().std() > 1e-3) or bool(data.double().std() > 1e-3)


def _random(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(tensor.shape, dtype=tensor.dtype)
    noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
    device = "cpu" if tensor.is_meta else tensor.device
    if tensor.dim() > 1:
        return (noise / max(1.0, tensor.numel() / max(1, tensor.shape[0])) ** 0.5).to(device)
    positive = name.endswith(("weight", "var", "gamma"))
    return (1 + 0.2 * noise.clamp(-3, 3) if positive else 0.2 * noise).to(device)


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
    memo: dict[int, Any] = {}
    removed, factors = plan.removed, scalings(plan)
    plain = ((name, tensor) for name, _, _, tensor in plain_tensors(slim))
    for name, tensor in (*slim.named_parameters(), *slim.named_buffers(), *plain):
        if name not in states:
            continue
        twin = tensor.detach()
        if name in hidden or name in factors:
            lost = removed.get(name, {})
            twin = scaled(
                precision.cast(slice_tensor(states[name], lost, name).detach()),
                factors.get(name, ()),
                lost,
            )
        twin = precision.cast(twin)
        twin = twin.clone() if twin.data_ptr() == tensor.data_ptr() else twin
        learned = isinstance(tensor, nn.Parameter) and twin.is_floating_point()
        memo[id(tensor)] = nn.Parameter(twin, False) if learned else twin
    small = copied(slim, memo)
    for module, traced in zip(small.modules(), slim.modules(), strict=True):
        if isinstance(module, nn.RMSNorm) and isinstance(traced, nn.RMSNorm) and module.eps is None:
            dtype = traced.weight.dtype if traced.weight is not None else torch.get_default_dtype()
            module.eps = torch.finfo(dtype).eps  # None means the eps of the dtype: it is part of the network
        for name, value in module.__dict__.items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                module.__dict__[name] = precision.cast(value)
    for module in (*loose_modules(small), small):
        module._apply(precision.cast)
    return small.eval()
