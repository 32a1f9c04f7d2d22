"""The integers that modules keep, in attributes and in plain objects they hold: watched, read and set by path.

A configuration object that many modules share is found once, by identity, and addressed from one owning module: the
path ("config", "num_heads") of module "encoder" is `encoder.config.num_heads`. Values are read and written in the
objects' own dictionaries, so that neither properties nor `__setattr__` hooks run.
"""

import argparse
import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import nn

from penjing.core import PlanError
from penjing.structure._network._copying import copied
from penjing.structure._network._provenance import Attr, TracedInt
from penjing.structure._network._walk import Named

Step = str | int

_MODULE_INTERNALS = frozenset(nn.Module().__dict__) | {
    "_flat_weights", "_flat_weights_names", "_all_weights", "_reversed_padding_repeated_twice",
}  # fmt: skip
_DEPTH = 3  # how deep values lie inside what a module holds
_LONGEST = 256  # longer lists are data, not sizes
_PLAIN = (types.SimpleNamespace, argparse.Namespace)


def _is_plain(value: Any) -> bool:
    """Whether a value is an object that only holds values: not a module, tensor, class, function or library part."""
    if (
        isinstance(value, (nn.Module, torch.Tensor, type))
        or callable(value)
        or not hasattr(value, "__dict__")
    ):
        return False
    library = type(value).__module__.partition(".")[0]
    return isinstance(value, _PLAIN) or not (library == "torch" or library in sys.stdlib_module_names)


def _entries(value: Any) -> Iterable[tuple[Step, Any]]:
    """What a container or plain object holds, with the step that leads there."""
    if type(value) in (tuple, list, torch.Size):
        return enumerate(value) if len(value) <= _LONGEST else ()
    if isinstance(value, dict):
        named = [(k, v) for k, v in dict.items(value) if type(k) is str or (type(k) is int and k >= 0)]
        return named if len(named) <= _LONGEST else ()
    return list(vars(value).items()) if _is_plain(value) else ()


def _put(holder: Any, step: Step, value: Any) -> None:
    if isinstance(holder, list):
        holder[step] = value  # type: ignore[index]
    else:
        dict.__setitem__(holder if isinstance(holder, dict) else vars(holder), step, value)


def read_attribute(model: nn.Module, attribute: Attr) -> int:
    """The integer's present value."""
    first, *rest = attribute.path
    held: Any = model.get_submodule(attribute.module).__dict__[str(first)]
    for step in rest:
        held = dict(_entries(held))[step]
    return int(held)


def set_attribute(module: nn.Module, path: Sequence[Step], value: int, original: nn.Module) -> None:
    """Set an integer of a copied module. Raises `PlanError` where there is none, or where `original` shares it."""
    place = ".".join(map(str, path))
    held = module.__dict__
    if not path or path[0] not in held or path[0] in _MODULE_INTERNALS:
        raise PlanError(f"the plan sets {place}, which this {type(module).__name__} lacks")
    before = read_path(module, path)
    _set(module, path, value, original, place)
    if before is not None and type(module).__setstate__ is not nn.Module.__setstate__:
        _keep_in_copies(module, path, before, value, original)


def _set(module: nn.Module, path: Sequence[Step], value: int, original: nn.Module, place: str) -> None:
    held, first = module.__dict__, str(path[0])
    held[first] = _changed(held[first], original.__dict__.get(first), path[1:], value, place)


def _keep_in_copies(
    module: nn.Module, path: Sequence[Step], before: int, value: int, original: nn.Module
) -> None:
    """A module that makes itself anew when it is copied, out of another record, has that record changed too."""
    tensors: dict[int, Any] = {id(t): t for t in (*module.parameters(), *module.buffers())}

    def copies() -> bool:
        return read_path(copied(module, dict(tensors)), path) == value

    if copies():
        return
    for other in [p for p in _integers(module.__dict__, ()) if read_path(module, p) == before]:
        _set(module, other, value, original, ".".join(map(str, other)))
        if copies():
            return
        _set(module, other, before, original, ".".join(map(str, other)))


def _integers(held: Any, path: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    for step, item in list(_entries(held)):
        if type(item) is int:
            yield (*path, step)
        elif len(path) <= _DEPTH and not isinstance(item, nn.Module) and step not in _MODULE_INTERNALS:
            yield from _integers(item, (*path, step))


def read_path(module: nn.Module, path: Sequence[Step]) -> int | None:
    """The integer at a path of attributes; None where there is none."""
    held: Any = module.__dict__
    for step in path:
        held = dict(_entries(held)).get(step)
    return held if type(held) is int else None


def _changed(held: Any, before: Any, path: Sequence[Step], value: int, place: str) -> Any:
    if not path:
        if type(held) is not int:
            raise PlanError(f"the plan sets {place}, which is no integer there")
        return value
    inside, was = dict(_entries(held)), dict(_entries(before))
    if path[0] not in inside:
        raise PlanError(f"the plan sets {place}, which is no integer there")
    new = _changed(inside[path[0]], was.get(path[0]), path[1:], value, place)
    if isinstance(held, tuple):
        return type(held)(new if step == path[0] else item for step, item in inside.items())
    if held is before:
        raise PlanError(
            f"the plan sets {place}, but copies of the network share the {type(held).__name__} there"
        )
    _put(held, path[0], new)
    return held


_INTEGERS = frozenset({int})
_ATOMIC = frozenset({str, float, bool, type(None)})
_HOOKS = itemgetter(*(n for n in nn.Module().__dict__ if n.endswith(("_hooks", "_hooks_with_kwargs"))))


class AttributeWatch:
    """Turns the integers a network keeps into `TracedInt`s if they are to be `traced`; on exit everything its modules
    hold is as it was, caches that the forward filled and hooks that it registered included.
    """

    def __init__(self, named: Named, *, traced: bool = True) -> None:
        self._named, self._traces = named, traced
        self._before: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._held: list[tuple[Any, Any]] = []
        self._empty: list[Any] = []
        self._seen: set[int] = set()
        self._watched: set[int] = set()

    def __enter__(self) -> "AttributeWatch":
        for path, module in self._named:
            attributes = module.__dict__
            self._before.append((attributes, attributes.copy()))
            hooks = _HOOKS(attributes)
            if any(hooks):
                self._held.extend((kind, kind.copy()) for kind in hooks)
            else:
                self._empty.extend(hooks)
            containers = []
            for name in [n for n in attributes if n not in _MODULE_INTERNALS]:
                value = attributes[name]
                kind = type(value)
                if kind in _ATOMIC:
                    continue
                if kind is int or (kind is tuple and _INTEGERS.issuperset(map(type, value))):
                    if self._traces:
                        attributes[name] = self._traced(value, path, (name,))
                else:
                    containers.append((name, value))
            for _, value in containers:
                self._remember(value, _DEPTH)
            for name, value in containers if self._traces else ():
                attributes[name] = self._traced(value, path, (name,))
        return self

    def __exit__(self, *error: object) -> None:
        for attributes, before in self._before:
            attributes.update(before)
            if len(attributes) != len(before):
                for name in attributes.keys() - before.keys():
                    del attributes[name]
        for held in filter(None, self._empty):
            held.clear()
        for held, content in self._held:
            held.clear()
            if isinstance(held, (list, deque)):
                held.extend(content)
            else:
                held.update(content)

    def _remember(self, value: Any, depth: int) -> None:
        """Containers a module keeps, and plain objects (their `__dict__`), down to a small depth; each once."""
        if id(value) in self._seen:
            return
        for item in self._keep(value) if depth >= 0 else ():
            self._remember(item, depth - 1)

    def _keep(self, value: Any) -> Iterator[Any]:
        if isinstance(value, (dict, list, set, deque)):
            self._held.append((value, value.copy()))
            inside = value.values() if isinstance(value, dict) else value
        elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, torch.Tensor, type)):
            inside = vars(value).values()
            if not callable(value):
                self._held.append((vars(value), vars(value).copy()))
        elif type(value) is tuple:
            inside = value
        else:
            return
        self._seen.add(id(value))
        yield from list(inside)

    def _traced(self, value: Any, module: str, path: tuple[Step, ...]) -> Any:
        if type(value) is int:
            return TracedInt.of(value, Attr(module, path))
        if type(value) is tuple and _INTEGERS.issuperset(map(type, value)):
            return tuple([TracedInt.of(n, Attr(module, (*path, step))) for step, n in enumerate(value)])
        if len(path) > _DEPTH or type(value) in _ATOMIC or id(value) in self._watched:
            return value
        found = [(step, item, self._traced(item, module, (*path, step))) for step, item in _entries(value)]
        if type(value) in (tuple, torch.Size):
            changed = any(new is not item for _, item, new in found)
            return type(value)(new for _, _, new in found) if changed else value
        self._watched.add(id(value))
        for step, item, new in found:
            if new is not item:
                _put(value, step, new)
        return value
