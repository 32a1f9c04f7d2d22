"""Which coupled groups can shrink at all, if only together with others."""

from collections.abc import Mapping

from penjing.core._groups import PruneGroup
from penjing.structure._sizes._counts import Count, Step, Variable
from penjing.structure._sizes._couplings import Component, Couplings
from penjing.structure._sizes._requirements import Live
from penjing.structure._sizes._search import Constraint, Search, meetings

KINDS, CHECKS = (
    64,
    10_000,
)  # kinds of groups tried one by one in a component (a handful mostly), and how long each


def immovable(couplings: Couplings) -> list[tuple[PruneGroup, Live]]:
    """Groups that cannot lose a unit even together with others, with the requirement that keeps them."""
    groups = couplings.groups
    found = [(groups[v], c.source) for c in couplings.wrong for v in c.variables if v < len(groups)]
    for component in couplings.components:
        found.extend(_immovable_in(couplings, component))
    return found


def _immovable_in(couplings: Couplings, component: Component) -> list[tuple[PruneGroup, Live]]:
    """All are halved together first; of those that stay whole then, one of each kind is tried by itself."""
    sizes = {v: couplings.size(v) for v in component.variables}
    groups = [v for v in component.variables if v < len(couplings.groups)]
    half = {v: (sizes[v] + 1) // 2 for v in groups}
    domains = {v: couplings.domain(v) for v in component.variables}
    together = Search(domains, half).run(component.variables, component.constraints) or sizes
    meeting = meetings(component.variables, component.constraints)
    stuck: dict[object, bool] = {}
    found = []
    for v in groups:
        if together[v] < sizes[v]:
            continue
        kind = sizes[v], frozenset(_form(c, v, sizes) for c in meeting[v])
        if kind not in stuck and len(stuck) < KINDS:
            smaller = {**domains, v: domains[v][:-1]}
            able = Search(smaller, half, CHECKS).run(component.variables, component.constraints, first=v)
            stuck[kind] = able is None
        if stuck.get(kind):
            found.append((couplings.groups[v], _blame(meeting[v], v, sizes).source))
    return found


def _form(constraint: Constraint, v: Variable, sizes: Mapping[Variable, int]) -> object:
    """A constraint with sizes in place of the variables other than `v`."""

    def seen(count: Count) -> object:
        if isinstance(count, Step):
            return count.name, seen(count.left), seen(count.right)
        return tuple((tuple("x" if u == v else sizes[u] for u in m), c) for m, c in count.terms)

    return seen(constraint.left), seen(constraint.right)


def _blame(own: list[Constraint], v: Variable, sizes: Mapping[Variable, int]) -> Constraint:
    """The first constraint that breaks when the group shrinks alone."""
    for kept in (sizes[v] - 1, (sizes[v] + 1) // 2):
        for constraint in own:
            if not constraint.holds({u: kept if u == v else sizes[u] for u in constraint.variables}):
                return constraint
    return own[0]
