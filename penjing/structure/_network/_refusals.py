"""Networks whose parameters cannot be sliced, each with its reason and the way out."""

import torch
from torch import nn
from torch.nn.utils.prune import BasePruningMethod

from penjing.core import UsageError
from penjing.structure._network._walk import Named, each_path, named_parameters


def refuse_unsupported(model: nn.Module) -> None:
    """Raises `UsageError` for networks whose parameters cannot be sliced, with the reason."""
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}: give a torch.nn.Module")
    named = each_path(model)
    kinds = {type(module): "" for _, module in named}
    kinds = {kind: _wrapper(kind) or _quantized(kind) for kind in kinds}
    for path, module in named:
        why = _code(module) or kinds[type(module)] or _adapter(module) or _masked(module) or _storage(module)
        if why:
            raise UsageError(f"{path or 'the network'} ({type(module).__name__}) {why}")
    _refuse_shared_storage(named)


def _code(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return "is a TorchScript module: its code cannot change; give the eager network"
    if "_orig_mod" in module._modules or "_orig_mod" in module.__dict__:
        return "is compiled: give the network itself (model._orig_mod) and compile the result"
    if module._compiled_call_impl is not None:
        return "is compiled in place: give the network before model.compile(), and compile the result"
    return ""


def _wrapper(kind: type) -> str:
    if issubclass(kind, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return "wraps a network for several devices: give model.module, and wrap the result again"
    if any(base.__module__.startswith("torch.distributed.") for base in kind.__mro__):
        return "is sharded over devices: give the unsharded network, and shard the result"
    return ""


def _adapter(module: nn.Module) -> str:
    if "lora_A" in module._modules and "lora_B" in module._modules:
        return "carries LoRA adapters beside its weight: merge them first with model.merge_and_unload()"
    return ""


def _masked(module: nn.Module) -> str:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            name = hook._tensor_name
            return (
                f"masks {name!r} by torch.nn.utils.prune: make it a plain parameter first with "
                f"prune.remove(module, {name!r})"
            )
    return ""


def _quantized(kind: type) -> str:
    quantized = ("torch.ao.", "torch.nn.quantized", "torch.nn.intrinsic.quantized")
    if any(base.__module__.startswith(quantized) for base in kind.__mro__):
        return "is quantized: prune the float network, then quantize the result"
    return ""


def _storage(module: nn.Module) -> str:
    for name, parameter in module._parameters.items():
        if parameter is None:
            continue
        if isinstance(parameter, nn.UninitializedParameter):
            return "is lazy: run model(example_inputs) once, so that its parameters get shapes"
        if parameter.dtype in (torch.int8, torch.uint8) and parameter.dim() > 1:
            return f"keeps {name!r} as packed integers: prune the float network, then quantize the result"
        if _dispatches(type(parameter)):
            return (
                f"keeps {name!r} as a {type(parameter).__name__}: give the network with plain parameters, and "
                "convert the result"
            )
    return ""


def _dispatches(kind: type) -> bool:
    """Whether a tensor class runs code of its own below every operator."""
    return getattr(kind, "__torch_dispatch__", None) is not getattr(torch.Tensor, "__torch_dispatch__", None)


def _refuse_shared_storage(named: Named) -> None:
    """Two parameter objects over one storage would come apart silently; one object under two names is fine."""
    owners: dict[tuple[int, int], str] = {}
    seen: set[int] = set()
    for name, parameter in named_parameters(named):
        if id(parameter) in seen or parameter.is_meta or not parameter.numel():
            continue
        seen.add(id(parameter))
        place = parameter.untyped_storage().data_ptr(), int(parameter.storage_offset())
        if place in owners:
            raise UsageError(
                f"{name!r} and {owners[place]!r} share memory but are two parameters: tie them by assigning one "
                "Parameter to both modules"
            )
        owners[place] = name
