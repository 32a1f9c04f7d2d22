"""Parameter groups, regularisers and optimizers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penjing.recover._training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Parameters that share a peak learning rate and a decay.

    `anchors`, when given, are the values that the decay pulls towards (L2-SP); otherwise it pulls towards 0.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    peak: float
    decay: float
    anchors: tuple[Tensor, ...] | None = None


def param_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    head: str | None = None,
    head_lr: float | None = None,
    layer_decay: float = 1.0,
    anchors: Mapping[str, Tensor] | None = None,
) -> tuple[Group, ...]:
    """Trainable parameters in groups: decayed or not, by depth, the head with its own learning rate.

    Tensors with fewer than two dimensions (norm scales, biases) never decay. A parameter k layers below the
    head learns at lr * layer_decay**k (Howard & Ruder, ULMFiT, ACL 2018, discriminative fine-tuning). Where
    `anchors` names a parameter, its decay pulls towards the anchor: L2-SP (Li et al., ICML 2018, eq. 3).
    """
    depth = layer_depths(model, head)
    buckets: dict[tuple[float, float, bool], list[str]] = {}
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in own.items():
        in_head = head is not None and (name == head or name.startswith(head + "."))
        peak = (head_lr or lr) if in_head else lr * layer_decay ** depth[name]
        decay = weight_decay if parameter.ndim >= 2 else 0.0
        anchored = decay > 0 and not in_head and anchors is not None and name in anchors
        buckets.setdefault((peak, decay, anchored), []).append(name)
    return tuple(
        Group(
            names=tuple(names),
            parameters=tuple(own[name] for name in names),
            peak=peak,
            decay=decay,
            anchors=_like(own, anchors, names) if anchored and anchors is not None else None,
        )
        for (peak, decay, anchored), names in buckets.items()
    )


def _like(
    own: Mapping[str, nn.Parameter], anchors: Mapping[str, Tensor], names: Sequence[str]
) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(own[name].detach()).copy_(anchors[name]) for name in names)


def layer_depths(model: nn.Module, head: str | None) -> dict[str, int]:
    """For each parameter, how many layers lie between it and the head; 1 for the last layer of the body.

    A layer is a numbered block ("blocks.3.2", "layer1.0"), or a module outside of any; one that holds only
    vectors (a norm) counts with the layer before it. The order is the order of registration.
    """
    parameters = dict(model.named_parameters())
    in_head = {n for n in parameters if head is not None and (n == head or n.startswith(head + "."))}
    body = [name for name in parameters if name not in in_head]
    deep = {_layer_of(name) for name in body if parameters[name].ndim >= 2}
    index: dict[str, int] = {}
    order: dict[str, int] = {}
    for name in body:
        layer = _layer_of(name)
        if layer in deep:
            order.setdefault(layer, len(order))
        index[name] = order.get(layer, max(0, len(order) - 1))
    return {name: 0 if name in in_head else max(1, len(order)) - index[name] for name in parameters}


def _layer_of(name: str) -> str:
    numbered = re.match(r"(?:.*?\.)??\d+(?:\.\d+)*(?=\.)", name)
    return numbered.group(0) if numbered else name.rpartition(".")[0]


def build_optimizer(groups: Sequence[Group], training: Training) -> torch.optim.Optimizer:
    """AdamW (decoupled decay; Loshchilov & Hutter, ICLR 2019) or SGD with momentum, one kernel per group."""
    listed = [
        {"params": list(g.parameters), "lr": g.peak, "weight_decay": 0.0 if g.anchors else g.decay}
        for g in groups
    ]
    fused = all(
        p.is_floating_point() and p.device.type in ("cpu", "cuda") for g in groups for p in g.parameters
    )
    if training.optimizer == "adamw":
        return torch.optim.AdamW(listed, fused=fused or None)
    nesterov = training.momentum > 0
    return torch.optim.SGD(listed, momentum=training.momentum, nesterov=nesterov, fused=fused or None)


def set_rate(optimizer: torch.optim.Optimizer, groups: Sequence[Group], factor: float) -> None:
    """Every group at its peak times `factor`."""
    for own, group in zip(optimizer.param_groups, groups, strict=True):
        own["lr"] = group.peak * factor


@torch.no_grad()
def pull(groups: Sequence[Group], factor: float) -> None:
    """One decoupled L2-SP step after the optimizer's: w -= lr * decay * (w - w0); AdamW's has w0 = 0."""
    for group in groups:
        if group.anchors is not None:
            weights: list[Tensor] = list(group.parameters)
            torch._foreach_lerp_(weights, list(group.anchors), group.peak * factor * group.decay)
