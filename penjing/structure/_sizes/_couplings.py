"""Groups whose kept counts depend on each other, because code computes one size from another.

`kept(heads) * 32 = kept(channels)` ties counts, not indices: which heads and which channels go stays free. After
widths are chosen by ratio they are repaired: moved to counts nearby that satisfy every constraint.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penjing.core._groups import PruneGroup
from penjing.structure._labels._atoms import Dim
from penjing.structure._network._provenance import Arith, Attr, Const, Expr, Size
from penjing.structure._sizes._counts import (
    Count,
    Owners,
    Poly,
    Step,
    Variable,
    combine,
    constant,
    substitute,
    variable,
    variables,
)
from penjing.structure._sizes._requirements import Live
from penjing.structure._sizes._search import Constraint, Search, parts

_SIGNS = {
    "floordiv": "//", "mod": "%", "add": "+", "sub": "-", "mul": "x",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Component:
    """Variables (groups first, then attributes) that constraints hold together."""

    variables: tuple[Variable, ...]
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True)
class Couplings:
    """The constraints on a network's groups. Variable i is `groups[i]`, then come `attributes`."""

    groups: tuple[PruneGroup, ...]
    attributes: tuple[tuple[Attr, int], ...]
    components: tuple[Component, ...]
    irregular: tuple[Live, ...]  # their sizes depend on which units stay, so they tie no counts
    wrong: tuple[Constraint, ...]  # do not hold even before anything is removed
    memory: dict[tuple[object, ...], dict[Variable, int]] = field(repr=False, default_factory=dict)

    def size(self, v: Variable) -> int:
        return len(self.groups[v]) if v < len(self.groups) else self.attributes[v - len(self.groups)][1]

    def domain(self, v: Variable) -> np.ndarray:
        size = self.size(v)
        return np.arange(1, size + 1) if size > 0 else np.array([size])

    def together(self) -> list[tuple[str, ...]]:
        """Names of the groups of each component."""
        return [
            tuple(self.groups[v].name for v in c.variables if v < len(self.groups)) for c in self.components
        ]

    def speaks_of(self, constraint: Constraint, names: Iterable[str]) -> bool:
        """Whether a constraint holds any of these groups."""
        own = {self.groups[v].name for v in constraint.variables if v < len(self.groups)}
        return not own.isdisjoint(names)

    def repair(self, wished: Mapping[str, int], choices: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Kept counts near the wished ones that satisfy every constraint.

        `choices` are the ascending counts a group may take; a group that is not named stays whole. Per component the
        group that takes part in most constraints is never below its wish, the others are as near to theirs as can
        be. Where no smaller counts are found in a bounded search, the component stays whole.
        """
        kept = {g.name: wished.get(g.name, len(g)) if g.name in choices else len(g) for g in self.groups}
        for number, component in enumerate(self.components):
            now = {v: self._now(v, kept) for v in component.variables}
            if all(c.holds(now) for c in component.constraints):
                continue
            domains = {v: self._domain_among(v, choices) for v in component.variables}
            key = (number, *now.values(), *(d.tobytes() for d in domains.values()))
            if key not in self.memory:
                aims = {v: n for v, n in now.items() if v < len(self.groups)}
                found = Search(domains, aims).run(component.variables, component.constraints)
                self.memory[key] = found or {v: self.size(v) for v in component.variables}
            values = self.memory[key].items()
            kept.update((self.groups[v].name, n) for v, n in values if v < len(self.groups))
        return kept

    def _now(self, v: Variable, kept: Mapping[str, int]) -> int:
        return kept[self.groups[v].name] if v < len(self.groups) else self.size(v)

    def _domain_among(self, v: Variable, choices: Mapping[str, np.ndarray]) -> np.ndarray:
        if v >= len(self.groups):
            return self.domain(v)
        return choices.get(self.groups[v].name, np.array([len(self.groups[v])]))

    def words(self, constraint: Constraint) -> str:
        """A constraint in plain words: '3 heads of 32 = 96 channels'."""
        return f"{self._say(constraint.left)} = {self._say(constraint.right)}"

    def _say(self, count: Count) -> str:
        if isinstance(count, Step):
            sign = _SIGNS[count.name]
            return f"({self._say(count.left)} {sign} {self._say(count.right)})"
        return " + ".join(self._say_term(*term) for term in count.terms) or "0"

    def _say_term(self, monomial: tuple[Variable, ...], coefficient: int) -> str:
        if not monomial:
            return str(coefficient)
        factors = " x ".join(self._say_variable(v) for v in monomial)
        return (
            factors
            if coefficient == 1
            else f"{factors} of {coefficient}"
            if len(monomial) == 1
            else f"{coefficient} x {factors}"
        )

    def _say_variable(self, v: Variable) -> str:
        if v < len(self.groups):
            group = self.groups[v]
            return f"{len(group)} {group.granularity}s ({group.name})"
        attribute, value = self.attributes[v - len(self.groups)]
        return f"{attribute} {value}"


def find_couplings(
    groups: Sequence[PruneGroup], live: Sequence[Live], count: int, attributes: Mapping[Attr, int]
) -> Couplings:
    """Constraints on kept counts, from requirements over `count` atoms. Linear in the sizes of the dims they name."""
    numbers = {a: len(groups) + i for i, a in enumerate(attributes)}
    read = _Reader(owners_of(groups, count), numbers)
    sides = [(item, read.sides(item)) for item in live]
    said: dict[tuple[Count, Count], Live] = {}  # layers that are alike say the same again and again
    for item, both in sides:
        if both is not None:
            said.setdefault(both, item)
    raw = [Constraint.of(*both, item) for both, item in said.items()]
    defined = _definitions(raw, len(groups))
    full = {i: len(g) for i, g in enumerate(groups)} | {numbers[a]: n for a, n in attributes.items()}
    constraints = _distinct(
        [Constraint.of(substitute(c.left, defined), substitute(c.right, defined), c.source) for c in raw],
        len(groups),
    )
    held = [c for c in constraints if c.holds(full) and not _always(c, full)]
    return Couplings(
        groups=tuple(groups),
        attributes=tuple(attributes.items()),
        components=tuple(Component(tuple(p), tuple(m)) for p, m in parts(held)),
        irregular=tuple(item for item, both in sides if both is None),
        wrong=tuple(c for c in constraints if not c.holds(full)),
    )


def _definitions(constraints: Iterable[Constraint], groups: int) -> dict[Variable, Poly]:
    """Attributes that equal a polynomial of counts by the first constraint that says so."""
    found: dict[Variable, Poly] = {}
    for constraint in constraints:
        for one, other in ((constraint.right, constraint.left), (constraint.left, constraint.right)):
            if (
                not isinstance(one, Poly)
                or not isinstance(other, Poly)
                or any(v >= groups for v in variables(other))
            ):
                continue
            ((monomial, coefficient), *more) = one.terms or (((), 0),)
            if not more and coefficient == 1 and len(monomial) == 1 and monomial[0] >= groups:
                found.setdefault(monomial[0], other)
    return found


def owners_of(groups: Sequence[PruneGroup], count: int) -> Owners:
    """Whose each of `count` atoms is."""
    owner, unit = np.full(count, -1, dtype=np.int32), np.zeros(count, dtype=np.int32)
    for position, group in enumerate(groups):
        members = np.array(group.atoms, dtype=np.int64)
        owner[members] = position
        unit[members] = np.arange(len(members))
    return Owners(owner, unit, tuple(len(g) for g in groups))


class _Reader:
    """Reads requirements as counts; a dim that several of them name is counted once."""

    def __init__(self, owners: Owners, numbers: Mapping[Attr, Variable]) -> None:
        self._owners, self._numbers = owners, numbers
        self._known: dict[tuple[object, ...], Poly | None] = {}

    def sides(self, item: Live) -> tuple[Count, Count] | None:
        """Both sides of a requirement; None where one depends on which units stay."""
        sizes = {
            leaf: self._dim(dim, item.facts.shapes[leaf.value][leaf.dim]) for leaf, dim in item.sizes.items()
        }
        left, expr = self._dim(item.dim, item.source.size), item.source.expr
        if left is None or None in sizes.values():
            return None
        if isinstance(expr, Arith) and expr.name == ("eq" if item.source.size else "ne"):
            return self._count(expr.left, sizes), self._count(expr.right, sizes)  # type: ignore[arg-type]
        return left, self._count(expr, sizes)  # type: ignore[arg-type]

    def _dim(self, dim: Dim, full: int) -> Poly | None:
        key = (full, *map(id, dim))  # requirements hold on to their dims
        if key not in self._known:
            self._known[key] = self._owners.count(dim, full)
        return self._known[key]

    def _count(self, expr: Expr, sizes: Mapping[Size, Poly]) -> Count:
        if isinstance(expr, Const):
            return constant(expr.value)
        if isinstance(expr, Arith):
            return combine(expr.name, self._count(expr.left, sizes), self._count(expr.right, sizes))
        return sizes[expr] if isinstance(expr, Size) else variable(self._numbers[expr])


def _distinct(constraints: Iterable[Constraint], groups: int) -> list[Constraint]:
    """Each constraint once, without those that hold by their form or speak of no group."""
    found: dict[object, Constraint] = {}
    for constraint in constraints:
        key: object = (constraint.left, constraint.right)
        if isinstance(constraint.left, Poly) and isinstance(constraint.right, Poly):
            difference = combine("sub", constraint.left, constraint.right)
            assert isinstance(difference, Poly)
            if not difference.terms:
                continue
            sign = 1 if difference.terms[-1][1] > 0 else -1
            key = tuple((m, sign * c) for m, c in difference.terms)
        if any(v < groups for v in constraint.variables):
            found.setdefault(key, constraint)
    return list(found.values())


def _always(constraint: Constraint, full: Mapping[Variable, int]) -> bool:
    """Whether a constraint on one variable holds whatever its value."""
    if len(constraint.variables) != 1:
        return False
    (only,) = constraint.variables
    domain = np.arange(1, full[only] + 1)
    return len(constraint.among({}, only, domain)) == len(domain)
