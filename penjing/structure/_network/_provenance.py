"""Integers that remember where they came from.

A forward that says `x.view(b, n, self.num_heads, -1)` is only right after pruning if `num_heads` follows the
heads that were removed. During a trace, module attributes and tensor sizes are `TracedInt`s: ints that carry an
expression over attributes and sizes through arithmetic. Evaluated after planning, the expressions say which
attributes to set and which dims must stay because a literal fixes their size.
"""

import operator
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np


class Const(NamedTuple):
    """A literal."""

    value: int


class Size(NamedTuple):
    """The size of one dim of a traced value."""

    value: int
    dim: int


class Attr(NamedTuple):
    """An integer that a module keeps; `path` leads from the attribute's name into what it holds."""

    module: str
    path: tuple[str | int, ...]

    def __str__(self) -> str:
        return ".".join(filter(None, (self.module, *map(str, self.path))))


class Arith(NamedTuple):
    """An arithmetic step over expressions, or a comparison of two."""

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
COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}
_STEPS = {**_ARITHMETIC, **COMPARED}


def apply_step(name: str, left: Any, right: Any) -> Any:
    """One arithmetic step on ints or integer arrays; -1, which no size equals, where it divides by zero."""
    if name not in ("floordiv", "mod"):
        return _STEPS[name](left, right)
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
    """An int with its expression; arithmetic with ints keeps it, anything else falls back to a plain int.

    Comparisons with ints are told to `hear`, while somebody listens.
    """

    expr: Expr
    hear: ClassVar[Callable[[Arith, bool], None] | None] = None
    told: ClassVar[int] = 0  # how many comparisons `hear` was told of

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


def _comparison(name: str) -> Callable[[TracedInt, Any], Any]:
    plain = getattr(int, f"__{name}__")

    def method(self: TracedInt, other: Any) -> Any:
        answer = plain(self, other)
        if TracedInt.hear is not None and answer is not NotImplemented and not isinstance(other, bool):
            TracedInt.told += 1
            TracedInt.hear(Arith(name, self.expr, expression(other)), answer)
        return answer

    return method


for _name in COMPARED:
    setattr(TracedInt, f"__{_name}__", _comparison(_name))
for _name in _ARITHMETIC:
    setattr(TracedInt, f"__{_name}__", _binary(_name, reflected=False))
    setattr(TracedInt, f"__r{_name}__", _binary(_name, reflected=True))
