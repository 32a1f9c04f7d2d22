"""What code remembers outside a network's modules stays as it was: memoised functions, module globals, class tables.

A memoised function compares sizes by value and would hand one call's provenance, or its meta tensors, to another;
a table that a forward fills would keep stand-ins for the user's next real call.
"""

import functools
import sys
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any

import torch
from torch import nn

from penjing.structure._provenance import TracedInt

_Memoised = functools._lru_cache_wrapper
_OWN_CODE = sys.stdlib_module_names | {"torch", "numpy", "sympy", "triton", "cuda"}
_looked_through: set[str] = set()
_memoised_globals: list[tuple[Any, str]] = []


class _Forgetful:
    """A memoised function with a memory of its own, which computes anew whenever an argument belongs to a trace."""

    __slots__ = ("_meanwhile", "_memoised")

    def __init__(self, memoised: Any) -> None:
        self._memoised, self._meanwhile = memoised, None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not args and not kwargs:
            return self._memoised()
        if any(_of_the_trace(a, 3) for a in (*args, *kwargs.values())):
            return self._memoised.__wrapped__(*args, **kwargs)
        if self._meanwhile is None:
            self._meanwhile = functools.cache(self._memoised.__wrapped__)
        return self._meanwhile(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memoised, name)


def _forgetful(memoised: Any) -> Any:
    if isinstance(memoised, (staticmethod, classmethod)):
        return type(memoised)(_Forgetful(memoised.__func__))
    return _Forgetful(memoised)


def _of_the_trace(item: Any, depth: int) -> bool:
    if isinstance(item, (TracedInt, torch.Tensor, nn.Module)):
        return True
    return depth > 0 and isinstance(item, tuple) and any(_of_the_trace(i, depth - 1) for i in item)


@contextmanager
def no_leftovers(model: nn.Module) -> Iterator[None]:
    """Inside, memoised functions remember nothing for later; afterwards tables hold what they held before."""
    kinds = {kind for m in model.modules() for kind in type(m).__mro__ if not _is_own(kind.__module__)}
    spaces = [vars(sys.modules[name]) for name in {k.__module__ for k in kinds} if name in sys.modules]
    tables = [(table, table.copy()) for space in (*spaces, *map(vars, kinds)) for table in _tables(space)]
    names = [(space, space.copy()) for space in spaces]
    undo: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, memoised in list(_memoised(kinds)):
            undo.append((owner, name, memoised))
            _bind(owner, name, _forgetful(memoised))
        yield
    finally:
        for owner, name, memoised in reversed(undo):
            _bind(owner, name, memoised)
        for table, content in tables:
            _restore(table, content)
        for space, before in names:
            space.update({k: v for k, v in before.items() if isinstance(space.get(k), torch.Tensor)})


def _bind(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_CODE


def _memoised(kinds: set[type]) -> Iterator[tuple[Any, str, Any]]:
    """Module globals and methods that are memoised functions; every module is looked through once per process."""
    for module in sys.modules.keys() - _looked_through:
        _looked_through.add(module)
        space = {} if _is_own(module) else getattr(sys.modules[module], "__dict__", {})
        for name, value in list(space.items()):
            _memoised_globals.extend(_within(space, name, value, 3))
    for owner, name in _memoised_globals:
        if type(_held(owner, name)) is _Memoised:
            yield owner, name, _held(owner, name)
    for kind in kinds:
        for name, value in list(vars(kind).items()):
            for owner, place in _within(kind, name, value, 3):
                yield owner, place, _held(owner, place)


def _within(owner: Any, name: str, value: Any, depth: int) -> Iterator[tuple[Any, str]]:
    """Where a value is a memoised function, or a decorated one that calls such a function."""
    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    if type(function) is _Memoised:
        yield owner, name
    elif depth and isinstance(function, FunctionType):
        for cell in function.__closure__ or ():
            yield from _within(cell, "cell_contents", _held(cell, "cell_contents"), depth - 1)


def _held(owner: Any, name: str) -> Any:
    if isinstance(owner, dict):
        return owner.get(name)
    try:
        return vars(owner)[name] if isinstance(owner, type) else getattr(owner, name, None)
    except ValueError:  # an empty cell
        return None


def _tables(space: Mapping[str, Any]) -> Iterator[Any]:
    for name, value in list(space.items()):
        if type(value) in (dict, list, set, OrderedDict, deque) and not name.startswith("__"):
            yield value


def _restore(table: Any, content: Any) -> None:
    if isinstance(table, dict):
        if table.keys() == content.keys() and all(table[k] is v for k, v in content.items()):
            return
        table.clear()
        table.update(content)
    elif isinstance(table, set):
        if len(table) != len(content):
            table.clear()
            table.update(content)
    elif len(table) != len(content) or any(a is not b for a, b in zip(table, content, strict=True)):
        table.clear()
        table.extend(content)
