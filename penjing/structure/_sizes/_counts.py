"""Sizes as polynomials of how many units stay in each group.

A dim that holds 12 heads of 64 has size `heads * head_dim`; a joined dim has the sum of its parts. Where code
divides, the quotient is taken apart as far as it is exact, and stays a `Step` otherwise.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.structure._labels._atoms import Dim
from penjing.structure._network._provenance import COMPARED, apply_step

Variable = int
Monomial = tuple[Variable, ...]


@dataclass(frozen=True, slots=True)
class Poly:
    """A sum of coefficient x product of variables, in one fixed order and without zeros."""

    terms: tuple[tuple[Monomial, int], ...]


@dataclass(frozen=True, slots=True)
class Step:
    """A quotient, remainder or comparison that is no polynomial, or arithmetic over one."""

    name: str
    left: "Count"
    right: "Count"


Count = Poly | Step


def constant(value: int) -> Poly:
    return _poly({(): value})


def variable(number: Variable) -> Poly:
    return Poly((((number,), 1),))


def _poly(terms: Mapping[Monomial, int]) -> Poly:
    return Poly(tuple(sorted((m, c) for m, c in terms.items() if c)))


def combine(name: str, left: Count, right: Count) -> Count:
    """left (add, eq and the like) right, simplified where that is exact for all positive values."""
    if isinstance(left, Poly) and isinstance(right, Poly):
        found = _EXACT[name](left, right)
        if found is not None:
            return found
    return Step(name, left, right)


def _sum(left: Poly, right: Poly, sign: int = 1) -> Poly:
    terms = dict(left.terms)
    for monomial, coefficient in right.terms:
        terms[monomial] = terms.get(monomial, 0) + sign * coefficient
    return _poly(terms)


def _difference(left: Poly, right: Poly) -> Poly:
    return _sum(left, right, -1)


def _product(left: Poly, right: Poly) -> Poly:
    terms: dict[Monomial, int] = {}
    for a, x in left.terms:
        for b, y in right.terms:
            monomial = tuple(sorted(a + b))
            terms[monomial] = terms.get(monomial, 0) + x * y
    return _poly(terms)


def _divided(left: Poly, right: Poly) -> tuple[Poly, Poly] | None:
    """left = quotient * right + rest, with 0 <= rest < right for all positive values; None where that is unclear."""
    if len(right.terms) != 1 or right.terms[0][1] <= 0:
        return None
    (divisor, scale) = right.terms[0]
    quotient: dict[Monomial, int] = {}
    rest = 0
    for monomial, coefficient in left.terms:
        remaining = _without(monomial, divisor)
        if remaining is not None and coefficient % scale == 0:
            quotient[remaining] = coefficient // scale
        elif monomial == () and (not divisor or 0 <= coefficient < scale):
            quotient[()], rest = coefficient // scale, coefficient % scale
        else:
            return None
    return _poly(quotient), constant(rest)


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    remaining = list(monomial)
    for factor in divisor:
        if factor not in remaining:
            return None
        remaining.remove(factor)
    return tuple(remaining)


def _quotient(left: Poly, right: Poly) -> Poly | None:
    found = _divided(left, right)
    return found[0] if found else None


def _remainder(left: Poly, right: Poly) -> Poly | None:
    found = _divided(left, right)
    return found[1] if found else None


def _compared(name: str, left: Poly, right: Poly) -> Poly | None:
    """1 or 0 where both sides differ by a constant."""
    difference = dict(_difference(left, right).terms)
    apart = difference.pop((), 0)
    return None if difference else constant(int(COMPARED[name](apart, 0)))


_EXACT: dict[str, Callable[[Poly, Poly], Poly | None]] = {
    "add": _sum,
    "sub": _difference,
    "mul": _product,
    "floordiv": _quotient,
    "mod": _remainder,
    **{name: functools.partial(_compared, name) for name in COMPARED},
}


def evaluate_count(count: Count, values: Mapping[Variable, Any]) -> Any:
    """The count for values of its variables: ints, or arrays that broadcast together."""
    if isinstance(count, Step):
        return apply_step(count.name, evaluate_count(count.left, values), evaluate_count(count.right, values))
    total: Any = 0
    for monomial, coefficient in count.terms:
        product: Any = coefficient
        for factor in monomial:
            product = product * values[factor]
        total = total + product
    return total


def variables(count: Count) -> Iterator[Variable]:
    """Every variable, with repetition."""
    if isinstance(count, Step):
        yield from variables(count.left)
        yield from variables(count.right)
    else:
        for monomial, _ in count.terms:
            yield from monomial


def substitute(count: Count, known: Mapping[Variable, Poly]) -> Count:
    """The count with some variables replaced by polynomials."""
    if known.keys().isdisjoint(variables(count)):
        return count
    if isinstance(count, Step):
        return combine(count.name, substitute(count.left, known), substitute(count.right, known))
    total = _poly({})
    for monomial, coefficient in count.terms:
        product = constant(coefficient)
        for factor in monomial:
            product = _product(product, known.get(factor, variable(factor)))
        total = _sum(total, product)
    return total


@dataclass(frozen=True, slots=True)
class Owners:
    """Which group each atom belongs to (-1: none), its unit number there, and how many units groups have."""

    group: np.ndarray
    unit: np.ndarray
    sizes: tuple[int, ...]

    def count(self, dim: Dim, full: int) -> Poly | None:
        """The size of a dim as a polynomial of groups' kept counts; None where it depends on which units stay."""
        if not dim:
            return constant(full)
        stacked = np.stack(dim)
        owners = self.group[stacked]
        alike = owners[:, 0].tolist() if (owners == owners[:, :1]).all() else []
        held = [owner for owner in alike if owner >= 0]
        if alike and len(set(held)) == len(held):  # the same groups throughout, each once
            times = self._times(stacked, owners[:, 0])
            return None if times is None else _poly({tuple(sorted(held)): times})
        atoms = _distinct_rows(stacked, self.group)
        owners = np.where(atoms >= 0, self.group[atoms], -1)
        code = np.zeros(atoms.shape[1], dtype=np.int64)
        for row in owners:
            code = code * (len(self.sizes) + 1) + row + 1
        if len(dim) * np.log2(len(self.sizes) + 2) > 62:
            return None
        terms: dict[Monomial, int] = {}
        for kind in np.unique(code).tolist():
            members = np.flatnonzero(code == kind)
            combination = tuple(int(g) for g in owners[:, members[0]] if g >= 0)
            times = self._times(atoms[:, members], owners[:, members[0]])
            if times is None:
                return None
            terms[tuple(sorted(combination))] = times
        return _poly(terms)

    def _times(self, atoms: np.ndarray, owners: np.ndarray) -> int | None:
        """How often each combination of units occurs; None unless all occur equally often."""
        total, code = 1, np.zeros(atoms.shape[1], dtype=np.int64)
        for row, owner in zip(atoms, owners.tolist(), strict=True):
            if owner >= 0:
                total *= self.sizes[owner]
                if total > atoms.shape[1]:
                    return None
                code = code * self.sizes[owner] + self.unit[row]
        found = np.bincount(code, minlength=total)
        return int(found[0]) if (found == found[0]).all() else None


def _distinct_rows(stacked: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Per index its owned atoms, each once, in rows sorted by group; -1 where there is none."""
    owner = group[stacked].astype(np.int64)
    if len(stacked) == 1:
        return np.where(owner >= 0, stacked, -1)
    keys = np.where(owner >= 0, (owner << 32) | stacked, -1)
    keys.sort(axis=0)
    repeated = (keys[1:] == keys[:-1]) & (keys[1:] >= 0)
    if repeated.any():
        keys[1:][repeated] = -1
        keys.sort(axis=0)
    return np.where(keys >= 0, keys & 0xFFFFFFFF, -1)
