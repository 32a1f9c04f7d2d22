"""What code remembers outside a network's modules stays as it was: memoised functions, module globals, class tables.

A memoised function compares sizes by value and would hand one call's provenance, or its meta tensors, to another;
a table that a forward fills would keep stand-ins for the user's next real call.
"""

import functools
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from operator import is_
from types import FunctionType
from typing import Any

import torch
from torch import nn

_Memoised = functools._lru_cache_wrapper
_OWN_CODE = sys.stdlib_module_names | {"penjing", "torch", "numpy", "sympy", "triton", "cuda"}
_TABLES = frozenset({dict, list, set, OrderedDict, deque})
_looked_through: set[str] = set()
_loaded: tuple[int, str] = (0, "")
_in_modules: "list[_Place]" = []
_in_kinds: "dict[type, tuple[tuple[Any, ...], list[_Place]]]" = {}


class _Forgetful:
    """A memoised function with a memory of its own, which computes anew whenever an argument belongs to a trace, or is
    an integer, which may.
    """

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

    def forget(self) -> None:
        self._meanwhile = None


def _of_the_trace(item: Any, depth: int) -> bool:
    if isinstance(item, (int, torch.Tensor, nn.Module)):
        return not isinstance(item, bool)
    return depth > 0 and isinstance(item, tuple) and any(_of_the_trace(i, depth - 1) for i in item)


class _Place:
    """Where a memoised function lives, with its stand-in, made once and bound while a trace runs."""

    __slots__ = ("_bound", "_forgetful", "_held", "_name", "_owner")

    def __init__(self, owner: Any, name: str) -> None:
        self._owner, self._name = owner, name
        self._held: Any = None

    def bind(self) -> bool:
        held = _held(self._owner, self._name)
        if held is not self._held or held is None:
            inner = held.__func__ if isinstance(held, (staticmethod, classmethod)) else held
            if type(inner) is not _Memoised:
                return False
            self._held, self._forgetful = held, _Forgetful(inner)
            wrap: Any = type(held)
            self._bound = self._forgetful if inner is held else wrap(self._forgetful)
        self._put(self._bound)
        return True

    def release(self) -> None:
        self._put(self._held)
        self._forgetful.forget()

    def _put(self, value: Any) -> None:
        if type(self._owner) is dict:
            self._owner[self._name] = value
        else:
            setattr(self._owner, self._name, value)


@contextmanager
def no_leftovers(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, memoised functions remember nothing for later; afterwards tables hold what they held before."""
    types = {type(m) for m in modules}
    kinds = {kind for t in types for kind in t.__mro__ if not _is_own(kind.__module__)}
    spaces = [vars(sys.modules[name]) for name in {k.__module__ for k in kinds} if name in sys.modules]
    tables = [(table, table.copy()) for space in (*spaces, *map(vars, kinds)) for table in _tables(space)]
    names = [(space, space.copy()) for space in spaces]
    bound: list[_Place] = []
    try:
        bound.extend(place for place in _memoised(kinds) if place.bind())
        yield
    finally:
        for place in reversed(bound):
            place.release()
        for table, content in tables:
            _restore(table, content)
        for space, before in names:
            for name, value in before.items():
                now = space.get(name)
                if now is not value and isinstance(now, torch.Tensor):
                    space[name] = value


def _is_own(module: str) -> bool:
    return module.partition(".")[0] in _OWN_CODE


def _memoised(kinds: set[type]) -> list[_Place]:
    """Module globals and methods that are memoised functions; every module is looked through once per process, a
    class again when it has changed.
    """
    for module in _new_modules():
        _looked_through.add(module)
        space = {} if _is_own(module) else getattr(sys.modules[module], "__dict__", {})
        for name, value in list(space.items()):
            _in_modules.extend(_Place(*place) for place in _within(space, name, value, 3))
    found = list(_in_modules)
    for kind in kinds:
        content = tuple(vars(kind).values())
        known = _in_kinds.get(kind)
        if known is None or len(known[0]) != len(content) or not all(map(is_, known[0], content)):
            places = [_Place(*p) for n, v in list(vars(kind).items()) for p in _within(kind, n, v, 3)]
            known = _in_kinds[kind] = content, places
        found.extend(known[1])
    return found


def _new_modules() -> Set[str]:
    """Modules not yet looked through: none while as many are loaded as before and the same was loaded last."""
    global _loaded
    before, _loaded = _loaded, (len(sys.modules), next(reversed(sys.modules)))
    return sys.modules.keys() - _looked_through if _loaded != before else frozenset()


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


def _tables(space: Mapping[str, Any]) -> list[Any]:
    return [v for name, v in space.items() if type(v) in _TABLES and not name.startswith("__")]


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
