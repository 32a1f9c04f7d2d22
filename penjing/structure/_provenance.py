"""Integers that remember where they came from.

A forward that says `x.view(b, n, self.num_heads, -1)` is only right after pruning if `num_heads` follows the
heads that were removed. During a trace, module attributes and tensor sizes are `TracedInt`s: ints that carry an
expression over attributes and sizes through arithmetic. Evaluated after planning, the expressions say which
attributes to set and which dims must stay because a literal fixes their size.
"""

import operator
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: int


@dataclass(frozen=True, slots=True)
class Size:
    """The size of one dim of a traced value."""

    value: int
    dim: int


@dataclass(frozen=True, slots=True)
class Attr:
    """An integer attribute of a module; `item` points into a tuple or list attribute."""

    module: str
    name: str
    item: int | None


@dataclass(frozen=True, slots=True)
class Arith:
    """An arithmetic step over expressions."""

    name: str
    left: "Expr"
    right: "Expr"


Expr = Const | Size | Attr | Arith

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
}


def apply_step(name: str, left: Any, right: Any) -> Any:
    """One arithmetic step on ints or integer arrays; -1, which no size equals, where it divides by zero."""
    if name not in ("floordiv", "mod"):
        return _ARITHMETIC[name](left, right)
    if isinstance(right, np.ndarray):
        return np.where(right == 0, -1, _ARITHMETIC[name](left, np.where(right == 0, 1, right)))
    return _ARITHMETIC[name](left, right) if right else -1


def evaluate(expr: Expr, leaf: Callable[[Size | Attr], int]) -> int:
    """The expression's value, with sizes and attributes read through `leaf`."""
    if isinstance(expr, Const):
        return expr.value
    if isinstance(expr, Arith):
        return apply_step(expr.name, evaluate(expr.left, leaf), evaluate(expr.right, leaf))
    return leaf(expr)


def leaves(expr: Expr) -> Iterator[Size | Attr]:
    """Every size and attribute an expression reads."""
    if isinstance(expr, Arith):
        yield from leaves(expr.left)
        yield from leaves(expr.right)
    elif not isinstance(expr, Const):
        yield expr


class TracedInt(int):
    """An int with its expression; arithmetic with ints keeps it, anything else falls back to a plain int."""

    expr: Expr

    @staticmethod
    def of(value: int, expr: Expr) -> "TracedInt":
        traced = TracedInt(value)
        traced.expr = expr
        return traced

    def __neg__(self) -> "TracedInt":
        return TracedInt.of(-int(self), Arith("sub", Const(0), self.expr))

    def __int__(self) -> int:
        return int.__add__(self, 0)

    def __deepcopy__(self, memo: object) -> int:
        return int(self)

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return int, (int(self),)


def expression(value: int) -> Expr:
    """The provenance of any int."""
    return value.expr if isinstance(value, TracedInt) else Const(int(value))


def _binary(name: str, reflected: bool) -> Callable[[TracedInt, Any], Any]:
    plain = getattr(int, f"__{'r' if reflected else ''}{name}__")

    def method(self: TracedInt, other: Any) -> Any:
        result = plain(self, other)
        if result is NotImplemented or isinstance(other, bool) or not isinstance(other, int):
            return result
        mine, theirs = self.expr, expression(other)
        return TracedInt.of(result, Arith(name, theirs, mine) if reflected else Arith(name, mine, theirs))

    return method


for _name in _ARITHMETIC:
    setattr(TracedInt, f"__{_name}__", _binary(_name, reflected=False))
    setattr(TracedInt, f"__r{_name}__", _binary(_name, reflected=True))

_MODULE_INTERNALS = frozenset(nn.Module().__dict__) | {"_flat_weights", "_flat_weights_names", "_all_weights"}


class AttributeWatch:
    """Turns a network's integer attributes into `TracedInt`s; on exit every module's attributes are as they were,
    caches that the forward filled included.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._before: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._held: list[tuple[Any, Any]] = []

    def __enter__(self) -> "AttributeWatch":
        for path, module in self._model.named_modules():
            attributes = module.__dict__
            own = {name: value for name, value in attributes.items() if name not in _MODULE_INTERNALS}
            self._before.append((attributes, own))
            for value in own.values():
                self._remember(value, 3)
            for name, value in own.items():
                attributes[name] = _traced(value, path, name)
        return self

    def __exit__(self, *error: object) -> None:
        for attributes, own in self._before:
            for name in [n for n in attributes if n not in own and n not in _MODULE_INTERNALS]:
                del attributes[name]
            attributes.update(own)
        for held, content in self._held:
            if isinstance(held, (list, deque)):
                held.clear()
                held.extend(content)
            else:
                held.clear()
                held.update(content)

    def _remember(self, value: Any, depth: int) -> None:
        """Containers a module keeps, and plain objects (their `__dict__`), down to a small depth."""
        if isinstance(value, (dict, list, set, deque)):
            self._held.append((value, value.copy()))
            inside = value.values() if isinstance(value, dict) else value
        elif hasattr(value, "__dict__") and not isinstance(value, (nn.Module, torch.Tensor, type)):
            inside = vars(value).values()
            if not callable(value):
                self._held.append((vars(value), vars(value).copy()))
        else:
            return
        for item in list(inside) if depth else ():
            self._remember(item, depth - 1)


def _traced(value: Any, path: str, name: str) -> Any:
    if type(value) is int:
        return TracedInt.of(value, Attr(path, name, None))
    if type(value) in (tuple, list, torch.Size) and value and all(type(v) is int for v in value):
        return type(value)(TracedInt.of(v, Attr(path, name, i)) for i, v in enumerate(value))
    return value
