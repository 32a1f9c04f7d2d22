"""Several processes train one network: every batch is shared out, and all take the step that one would have taken.

Plain torch.distributed, without DistributedDataParallel or Accelerate: those average gradients over processes, and what
is wanted is the mean over the examples of a batch that may not divide evenly, batch norms that see the whole batch on
CPUs too (SyncBatchNorm needs CUDA), and the same batches as one process sees; what is left of a wrapper then is less
than what would have to be worked around. With loss_r the mean over the n_r of N examples that process r has,

    L = sum_r (n_r / N) loss_r,    so every process goes back from (n_r / N) loss_r, and gradients are summed.

That is the loss of the whole batch wherever it is a mean over examples. Losses that compare the examples of a batch
(dist, relational) compare those of a share. Dropout is drawn apart in every process.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from penjing.core import UsageError
from penjing.recover._modules import tensors_of

_apart = False


def processes() -> int:
    """How many train together; 1 while this one works alone."""
    joined = dist.is_available() and dist.is_initialized() and not _apart
    return dist.get_world_size() if joined else 1


@contextmanager
def alone() -> Iterator[None]:
    """What this process does inside, the others do not take part in."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def rank() -> int:
    return dist.get_rank() if processes() > 1 else 0


def wait_for_all() -> None:
    if processes() > 1:
        dist.barrier()


def from_first(value: Any) -> Any:
    """What the first process has, in every process; it must be small."""
    if processes() == 1:
        return value
    told = [value]
    dist.broadcast_object_list(told, src=0)
    return told[0]


@torch.no_grad()
def spread(*models: nn.Module) -> None:
    """The values of the first process's parameters and buffers, in every process's models."""
    if processes() > 1:
        for model in models:
            for tensor in tensors_of(model).values():
                whole = tensor.contiguous()
                dist.broadcast(whole, src=0)
                tensor.copy_(whole)


def shares(batches: Iterable[Any]) -> Iterable[Any]:
    """Of every batch the examples that fall to this process."""
    return batches if processes() == 1 else (_share(batch) for batch in batches)


def size_of(batch: Any) -> int:
    """The number of examples in a batch: the length of its first tensor."""
    return next(len(tensor) for tensor in _tensors(batch) if tensor.ndim)


def weighed(loss: Tensor, weight: float) -> tuple[Tensor, float]:
    """This process's part of the loss of the whole batch, and that loss; `weight` are the terms of its own mean."""
    counts = torch.tensor([float(weight)], device=loss.device, dtype=torch.float64)
    dist.all_reduce(counts)
    part = loss * (weight / max(1.0, counts.item()))
    whole = part.detach().double().reshape(1).clone()
    dist.all_reduce(whole)
    return part, whole.item()


@torch.no_grad()
def sum_gradients(optimizer: torch.optim.Optimizer) -> None:
    """Every parameter's gradient becomes the sum over processes; one that none has stays None."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    known = torch.tensor(
        [p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device
    )
    dist.all_reduce(known, op=dist.ReduceOp.MAX)
    learning = [p for p, has in zip(parameters, known.tolist(), strict=True) if has]
    kinds = dict.fromkeys(p.dtype for p in learning)
    for kind in kinds:
        own = [p for p in learning if p.dtype == kind]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in own])
        dist.all_reduce(flat)
        for p, part in zip(own, flat.split([p.numel() for p in own]), strict=True):
            p.grad = torch.empty_like(p).copy_(
                part.view(p.shape)
            )  # laid out as the weight: fused steps rely on it


@contextmanager
def joint_norms(model: nn.Module) -> Iterator[None]:
    """Batch norms in training take their statistics over all processes' examples inside."""
    norms = [m for m in model.modules() if isinstance(m, _NormBase) and _joins(m)] if processes() > 1 else []
    for norm in norms:
        norm.forward = partial(_normalised, norm, norm.forward)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _joins(norm: _NormBase) -> bool:
    return not isinstance(norm, nn.modules.instancenorm._InstanceNorm | nn.SyncBatchNorm)


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        whole = value.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone()
        dist.all_reduce(whole)
        return whole


def _normalised(norm: _NormBase, alone: Any, x: Tensor) -> Tensor:
    """Batch normalisation (Ioffe & Szegedy, ICML 2015, algorithm 1) of x [batch, channels, ...] over all processes."""
    if not norm.training:
        return alone(x)
    dims, shape = [d for d in range(x.ndim) if d != 1], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    count = torch.tensor([float(x.numel() // x.shape[1])], device=x.device, dtype=wide.dtype)
    dist.all_reduce(count)
    mean = _Sum.apply(wide.sum(dims)) / count
    away = wide - mean.view(shape)
    variance = _Sum.apply((away * away).sum(dims)) / count
    _remember(norm, mean.detach(), variance.detach() * count / (count - 1).clamp(min=1))
    scaled = away * (variance + norm.eps).rsqrt().view(shape)
    if norm.weight is not None:
        scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    return scaled.to(x.dtype)


@torch.no_grad()
def _remember(norm: _NormBase, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or not norm.track_running_stats:
        return
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


def _share(batch: Any) -> Any:
    count = size_of(batch)
    if count < processes():
        raise UsageError(
            f"A batch of {count} examples cannot be shared by {processes()} processes. Fix: a larger batch_size, or "
            "fewer processes (torchrun --nproc-per-node)"
        )
    low, high = (count * r // processes() for r in (rank(), rank() + 1))
    return _sliced(batch, count, low, high)


def _sliced(part: Any, count: int, low: int, high: int) -> Any:
    again = partial(_sliced, count=count, low=low, high=high)
    if isinstance(part, Tensor):
        return part[low:high] if part.ndim and len(part) == count else _whole(part)
    if isinstance(part, Mapping):
        return {key: again(value) for key, value in part.items()}
    if isinstance(part, tuple) and hasattr(part, "_fields"):
        return type(part)(*map(again, part))
    if isinstance(part, list | tuple) and not any(True for _ in _tensors(part)) and len(part) == count:
        return part[low:high]
    if isinstance(part, list | tuple):
        return type(part)(map(again, part))
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{f.name: again(getattr(part, f.name)) for f in fields(part)})
    return part


def _whole(part: Tensor) -> Tensor:
    if part.ndim == 0:
        return part
    raise UsageError(
        f"A tensor of shape {list(part.shape)} in a batch has no place for each example, so the batch cannot be shared "
        "by several processes. Fix: let the task's batches hold tensors [batch, ...], or train in one process"
    )


def _tensors(part: Any) -> Iterator[Tensor]:
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from _tensors(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from _tensors(value)
    elif is_dataclass(part) and not isinstance(part, type):
        for field in fields(part):
            yield from _tensors(getattr(part, field.name))
