"""Deep copies of networks, without `copy.deepcopy`'s price for thousands of small objects."""

import copy
import functools
import types
from collections import OrderedDict
from collections.abc import Mapping
from copyreg import dispatch_table
from typing import Any, cast

import torch
from torch import nn

from penjing.core import PlanError
from penjing.structure._network._pages import cloned
from penjing.structure._network._walk import each_path

_ATOMIC = frozenset((type(None), bool, int, float, str, types.FunctionType, torch.dtype, torch.device))
_CONTAINERS = frozenset((dict, OrderedDict, list, set))
_BARE = object()
_LAST_OF_STATE = (
    "_backward_pre_hooks"  # the youngest of what `nn.Module.__setstate__` adds to states without it
)


def copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy(model, memo)` gives, where functions kept as attributes speak of the copy.

    Raises `PlanError` for a network that cannot be copied.
    """
    try:
        made = cast(nn.Module, _copy(model, memo))
        rebind(made, memo)
        return made
    except (RuntimeError, TypeError) as error:
        raise PlanError(
            f"this {type(model).__name__} cannot be copied: {error}. Remove what it keeps that belongs to one "
            "process (locks, open files, connections) before pruning"
        ) from error


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy`, walking modules and plain containers itself."""
    kind = type(value)
    if kind in _ATOMIC:
        return value
    found = memo.get(id(value), _BARE)
    if found is not _BARE:
        return found
    if kind in _CONTAINERS and not value:
        made = memo[id(value)] = kind()
        return made
    if kind is dict or (kind is OrderedDict and not value.__dict__):
        made = memo[id(value)] = kind()
        for key, item in value.items():
            made[key if type(key) is str else _copy(key, memo)] = _copy(item, memo)
        return made
    if kind is list:
        made = memo[id(value)] = []
        made.extend(_copy(item, memo) for item in value)
        return made
    if kind is tuple and all(type(item) in _ATOMIC for item in value):
        return value
    if isinstance(value, nn.Module) and _is_plain(value):
        return _twin(value, memo)
    if isinstance(value, torch.Tensor):
        return _tensor(value, memo)
    return copy.deepcopy(value, memo)


def _tensor(value: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    if value.grad_fn is not None:  # left over from a forward that learned
        made = memo[id(value)] = value.detach().clone()
        return made
    if type(value) is nn.Parameter:
        made = memo[id(value)] = nn.Parameter(cloned(value), value.requires_grad)
        return marked_like(made, value)
    if type(value) is torch.Tensor and _owns_memory(value):
        shared = memo.setdefault(
            cast(int, "torch"), {}
        )  # where `deepcopy` looks for memory that tensors share
        place = value.untyped_storage()._cdata
        if place not in shared:
            made = memo[id(value)] = cloned(value)
            shared[place] = made.untyped_storage()
            return made
    made = cast(Any, copy.deepcopy(value, memo))
    return marked_like(made, value) if isinstance(value, nn.Parameter) else made


def _owns_memory(value: torch.Tensor) -> bool:
    """Whether a tensor is no more than numbers on the CPU that fill the memory they lie in."""
    return (
        value.is_cpu
        and value.layout is torch.strided
        and not (value.is_quantized or value.is_complex() or value.is_neg() or value.requires_grad)
        and value.is_contiguous()
        and value.untyped_storage().nbytes() == value.numel() * value.element_size()
        and not vars(value)
    )


def marked_like(made: torch.Tensor, original: torch.Tensor) -> torch.Tensor:
    """The tensor with what the original's owner wrote on it (`weight.no_decay = True`)."""
    if vars(original):
        vars(made).update(vars(original))
    return made


def _twin(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    kind = type(module)
    made = memo[id(module)] = kind.__new__(kind)
    state = module.__getstate__()
    for name, value in state.items():
        held = type(value)
        if held in _CONTAINERS and not value and id(value) not in memo:  # most of what a module keeps
            state[name] = memo[id(value)] = held()
        elif held not in _ATOMIC:
            state[name] = _copy(value, memo)
    if kind.__setstate__ is nn.Module.__setstate__ and _LAST_OF_STATE in state:
        made.__dict__.update(state)
    else:
        made.__setstate__(state)
    return made


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is copied by its attributes, as `nn.Module` is, and not in a way of its own."""
    kind = type(module)
    if not _is_plain_kind(kind) or kind in dispatch_table:
        return False
    if kind.__getattr__ is nn.Module.__getattr__ and kind.__getattribute__ is object.__getattribute__:
        return "__deepcopy__" not in module.__dict__
    return getattr(module, "__deepcopy__", None) is None


@functools.lru_cache(maxsize=512)
def _is_plain_kind(kind: type[nn.Module]) -> bool:
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and kind.__getstate__ is nn.Module.__getstate__
        and kind.__new__ is object.__new__
        and not any(hasattr(kind, n) for n in ("__getnewargs_ex__", "__getnewargs__", "__deepcopy__"))
    )


def rebind(model: nn.Module, memo: Mapping[int, Any]) -> None:
    """Functions kept as attributes, `lambda t: t @ self.table.weight.T`, speak of the copy and not of the original.

    `memo` is what the deep copy wrote down: id of an original object -> its copy.
    """
    for _, module in each_path(model):
        if types.FunctionType not in map(type, module.__dict__.values()):
            continue
        kept = [(n, v) for n, v in module.__dict__.items() if type(v) is types.FunctionType and v.__closure__]
        for name, value in kept:
            cells = value.__closure__ or ()
            moved = tuple(_moved(cell, memo) for cell in cells)
            if any(new is not old for new, old in zip(moved, cells, strict=True)):
                module.__dict__[name] = _with_cells(value, moved)


def _moved(cell: types.CellType, memo: Mapping[int, Any]) -> types.CellType:
    try:
        held = cell.cell_contents
    except ValueError:  # a name that is not bound yet
        return cell
    twin = memo.get(id(held)) if isinstance(held, (nn.Module, torch.Tensor)) else None
    return cell if twin is None or twin is held else types.CellType(twin)


def _with_cells(function: types.FunctionType, cells: tuple[types.CellType, ...]) -> types.FunctionType:
    made = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return cast(types.FunctionType, functools.update_wrapper(made, function))
