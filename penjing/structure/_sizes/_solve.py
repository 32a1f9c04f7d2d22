"""Attribute values that make every requirement hold after given atoms are removed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.structure._network._provenance import Arith, Attr, Const, Expr, Size
from penjing.structure._sizes._counts import Count, combine, constant, variable
from penjing.structure._sizes._requirements import Live, kept_size
from penjing.structure._sizes._search import Constraint, Search, parts


@dataclass(frozen=True, slots=True)
class Solution:
    """New attribute values, or the requirement that cannot be met."""

    attributes: Mapping[Attr, int]
    broken: Live | None


def solve(live: Sequence[Live], gone: np.ndarray, current: Callable[[Attr], int]) -> Solution:
    """Attributes are unknowns: a dim sized by one gives its value; the others are searched up to their present one."""
    values: dict[Attr, int] = {}
    for item in live:
        expr = item.source.expr
        if isinstance(expr, Attr):
            kept = kept_size(item.dim, gone, item.source.size)
            if values.setdefault(expr, kept) != kept:
                return Solution(values, item)
    unknown: dict[Attr, int] = {}
    constraints = []
    for item in live:
        if isinstance(item.source.expr, Attr):
            continue
        right = _count(item, item.source.expr, gone, values, unknown)
        constraint = Constraint.of(constant(kept_size(item.dim, gone, item.source.size)), right, item)
        if not constraint.variables and not constraint.holds({}):
            return Solution(values, item)
        constraints.append(constraint)
    return _search(constraints, values, unknown, current)


def _count(
    item: Live, expr: Expr, gone: np.ndarray, values: Mapping[Attr, int], unknown: dict[Attr, int]
) -> Count:
    if isinstance(expr, Const):
        return constant(expr.value)
    if isinstance(expr, Arith):
        left = _count(item, expr.left, gone, values, unknown)
        return combine(expr.name, left, _count(item, expr.right, gone, values, unknown))
    if isinstance(expr, Size):
        return constant(kept_size(item.sizes[expr], gone, item.facts.shapes[expr.value][expr.dim]))
    return constant(values[expr]) if expr in values else variable(unknown.setdefault(expr, len(unknown)))


def _search(
    constraints: Sequence[Constraint],
    values: dict[Attr, int],
    unknown: Mapping[Attr, int],
    current: Callable[[Attr], int],
) -> Solution:
    now = {number: current(attribute) for attribute, number in unknown.items()}
    domains = {v: np.arange(1, n + 1) if n > 0 else np.array([n]) for v, n in now.items()}
    names = list(unknown)
    for part, own in parts([c for c in constraints if c.variables]):
        found = Search(domains, {}).run(part, own)
        if found is None:
            return Solution(values, own[0].source)
        values.update((names[number], value) for number, value in found.items())
    return Solution(values, None)
