"""Find counts that satisfy every constraint, each as near as can be to what was wished for.

A hub (the variable that most constraints speak of) is walked; what is left falls apart into parts that are solved
one by one. The number of constraints looked at is bounded.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from penjing.structure._sizes._counts import Count, Variable, evaluate_count, variables
from penjing.structure._sizes._requirements import Live

CHECKS, DEPTH = 100_000, 100  # constraints looked at in one search (seconds at most); nested hubs
Domains = Mapping[Variable, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Constraint:
    """Two counts that must be equal; `source` is the requirement that asks for it."""

    left: Count
    right: Count
    source: Live
    variables: tuple[Variable, ...]

    @staticmethod
    def of(left: Count, right: Count, source: Live) -> "Constraint":
        return Constraint(left, right, source, tuple(sorted({*variables(left), *variables(right)})))

    def holds(self, values: Mapping[Variable, int]) -> bool:
        return bool(evaluate_count(self.left, values) == evaluate_count(self.right, values))

    def among(self, values: Mapping[Variable, int], unknown: Variable, domain: np.ndarray) -> np.ndarray:
        """The values of the one unknown variable for which it holds."""
        known = {v: values[v] for v in self.variables if v != unknown}
        known[unknown] = domain  # type: ignore[assignment]
        equal = evaluate_count(self.left, known) == evaluate_count(self.right, known)
        return domain[np.broadcast_to(equal, domain.shape)]


def connected(pending: Iterable[Variable], constraints: Sequence[Constraint]) -> list[list[Variable]]:
    """Variables that hang together through constraints, in a fixed order."""
    parent = {v: v for v in pending}

    def root(v: Variable) -> Variable:
        while parent[v] != v:
            parent[v] = parent[parent[v]]
            v = parent[v]
        return v

    for constraint in constraints:
        own = [root(v) for v in constraint.variables if v in parent]
        for other in own[1:]:
            parent[root(other)] = root(own[0])
    found: dict[Variable, list[Variable]] = {}
    for v in sorted(parent):
        found.setdefault(root(v), []).append(v)
    return list(found.values())


def parts(constraints: Sequence[Constraint]) -> list[tuple[list[Variable], list[Constraint]]]:
    """Constraints that share variables, together with those variables."""
    found = connected(sorted({v for c in constraints for v in c.variables}), constraints)
    owner = {v: number for number, part in enumerate(found) for v in part}
    members: list[list[Constraint]] = [[] for _ in found]
    for constraint in constraints:
        members[owner[constraint.variables[0]]].append(constraint)
    return list(zip(found, members, strict=True))


class _Exhausted(Exception):
    """More constraints looked at than allowed."""


class Search:
    """One search: `domains` holds the ascending values a variable may take, `wished` what it should be near.

    Variables without a wish (attributes) follow the others; free to choose, they keep the largest value.
    """

    def __init__(self, domains: Domains, wished: Mapping[Variable, int], checks: int = CHECKS) -> None:
        self._domains, self._wished, self._checks = domains, wished, checks
        self._depth = 0

    def run(
        self, pending: Sequence[Variable], constraints: Sequence[Constraint], *, first: Variable | None = None
    ) -> dict[Variable, int] | None:
        """Values of all variables, or None where there are none or the search took too long.

        `first` is walked as the hub, nearest values first. Otherwise the hub is never below its wish where that can
        be; the others are as near to theirs as can be.
        """
        given = {v: int(self._domains[v][0]) for v in pending if len(self._domains[v]) == 1}
        try:
            return self._complete(pending, list(constraints), self._domains, given, first, first is None)
        except _Exhausted:
            return None

    def _complete(
        self,
        pending: Sequence[Variable],
        constraints: list[Constraint],
        domains: Domains,
        known: Mapping[Variable, int],
        first: Variable | None = None,
        upward: bool = False,
    ) -> dict[Variable, int] | None:
        own = {v: domains[v] for v in pending if v not in known}
        propagated = self._propagate(constraints, own, known)
        if propagated is None:
            return None
        values, unsettled = propagated
        meeting = meetings((v for v in own if v not in values), unsettled)
        for part in connected(meeting, unsettled):
            hub = max(part, key=lambda v: (v == first, v in self._wished, len(meeting[v]), len(own[v]), -v))
            mine = list(dict.fromkeys(c for v in part for c in meeting[v]))
            found = self._walk(hub, part, mine, own, values, upward)
            if found is None:
                return None
            values.update(found)
        return values

    def _walk(
        self,
        hub: Variable,
        part: Sequence[Variable],
        constraints: list[Constraint],
        domains: Domains,
        values: Mapping[Variable, int],
        upward: bool,
    ) -> dict[Variable, int] | None:
        known = {v: values[v] for c in constraints for v in c.variables if v in values}
        if self._depth >= DEPTH:
            raise _Exhausted
        self._depth += 1
        try:
            for candidate in self._order(hub, domains[hub], upward):
                found = self._complete(part, constraints, domains, {**known, hub: candidate})
                if found is not None:
                    return found
        finally:
            self._depth -= 1
        return None

    def _order(self, v: Variable, domain: np.ndarray, upward: bool) -> Iterator[int]:
        """Nearest to the wish first (the larger of two); `upward`: everything above it before anything below."""
        wish = self._wished.get(v, int(domain[-1]) if domain.size else 0)
        away, below = np.abs(domain - wish), domain < wish
        for position in np.lexsort((away, below) if upward else (below, away)):
            yield int(domain[position])

    def _propagate(
        self,
        constraints: list[Constraint],
        domains: dict[Variable, np.ndarray],
        known: Mapping[Variable, int],
    ) -> tuple[dict[Variable, int], list[Constraint]] | None:
        """Narrow `domains` in place by constraints with a single unknown, until none is left.

        Returns the values that follow and the constraints with several unknowns, or None when one fails; that one
        moves to the front of `constraints`, so that the next try meets it first.
        """
        values, settled = dict(known), set[int]()
        meeting = meetings(domains, constraints)
        waiting = deque(constraints)
        while waiting:
            constraint = waiting.popleft()
            unknown = [v for v in constraint.variables if v not in values]
            if len(unknown) > 1 or id(constraint) in settled:
                continue
            self._checks -= 1
            if self._checks < 0:
                raise _Exhausted
            settled.add(id(constraint))
            if not _narrow(constraint, unknown, domains, values):
                constraints.remove(constraint)
                constraints.insert(0, constraint)
                return None
            if unknown and unknown[0] in values:
                waiting.extend(meeting[unknown[0]])
        return values, [c for c in constraints if id(c) not in settled]


def meetings(
    among: Iterable[Variable], constraints: Sequence[Constraint]
) -> dict[Variable, list[Constraint]]:
    """The constraints that speak of each variable."""
    found: dict[Variable, list[Constraint]] = {v: [] for v in among}
    for constraint in constraints:
        for v in constraint.variables:
            if v in found:
                found[v].append(constraint)
    return found


def _narrow(
    constraint: Constraint,
    unknown: Sequence[Variable],
    domains: dict[Variable, np.ndarray],
    values: dict[Variable, int],
) -> bool:
    if not unknown:
        return constraint.holds(values)
    (only,) = unknown
    domains[only] = constraint.among(values, only, domains[only])
    if domains[only].size == 1:
        values[only] = int(domains[only][0])
    return bool(domains[only].size)
