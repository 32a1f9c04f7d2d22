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
from penjing.structure._walk import each_path

_ATOMIC = frozenset((type(None), bool, int, float, str, types.FunctionType, torch.dtype, torch.device))
_CONTAINERS = frozenset((dict, OrderedDict, list, set))
_BARE = object()


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
    if isinstance(value, nn.Module) and _plain(value):
        return _twin(value, memo)
    if isinstance(value, torch.Tensor) and value.grad_fn is not None:  # left over from a forward that learned
        made = memo[id(value)] = value.detach().clone()
        return made
    made = cast(Any, copy.deepcopy(value, memo))
    return marked_like(made, value) if isinstance(value, nn.Parameter) else made


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
        sort = type(value)
        if sort in _ATOMIC:
            continue
        if sort in _CONTAINERS and not value and id(value) not in memo:  # most are tables of hooks
            state[name] = memo[id(value)] = sort()
        else:
            state[name] = _copy(value, memo)
    made.__setstate__(state)
    return made


def _plain(module: nn.Module) -> bool:
    """Whether a module is copied by its attributes, as `nn.Module` is, and not in a way of its own."""
    return _plain_kind(type(module)) and getattr(module, "__deepcopy__", None) is None


@functools.lru_cache(maxsize=512)
def _plain_kind(kind: Any) -> bool:
    return (
        kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and kind.__getstate__ is nn.Module.__getstate__
        and kind.__new__ is object.__new__
        and kind not in dispatch_table
        and not any(hasattr(kind, name) for name in ("__getnewargs_ex__", "__getnewargs__"))
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
