"""From selected units to a plan: exact slices under every alias, and the attributes that follow."""

from collections.abc import Iterable, Mapping

import numpy as np

from penjing.core import PlanError, UsageError
from penjing.core._edits import Removal, RemoveUnits, ReplaceComponent, SetAttribute
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan, Skipped
from penjing.structure import Structure


def plan_removal(
    structure: Structure,
    selection: Mapping[str, Iterable[int]],
    *,
    skipped: tuple[Skipped, ...] = (),
    policies: tuple[str, ...] = (),
) -> Plan:
    """The plan that removes the selected units (group name -> unit numbers).

    Raises `UsageError` if a group would lose every unit and `PlanError`, with counts nearby that work, if a size in
    the code cannot follow.
    """
    chosen = {name: tuple(sorted(set(units))) for name, units in selection.items()}
    chosen = {name: units for name, units in chosen.items() if units}
    gone = structure.gone(chosen)
    attributes, broken = structure.attributes_after(gone)
    if broken is not None:
        raise PlanError(
            f"a size in the code cannot follow this removal: {broken.source.cause}{_nearby(structure, chosen)}"
        )
    aliases = {state.names[0]: state.names for state in structure.states}
    groups = {group.name: group for group in structure.groups}
    edits = [_remove(groups[name], units, aliases) for name, units in chosen.items()]
    settings = [
        SetAttribute(module=a.module, attribute=str(a.path[0]), path=a.path[1:], value=value)
        for a, value in sorted(attributes.items(), key=lambda item: str(item[0]))
    ]
    changed = {removal.name for edit in edits for removal in edit.removals}
    twins = [
        ReplaceComponent(module=path, kind=kind)
        for path, kind in structure.replaceable.items()
        if any(name.startswith(f"{path}." if path else "") for name in changed)
    ]
    return Plan(
        edits=(*edits, *twins, *settings),
        fingerprint=structure.fingerprint,
        skipped=skipped,
        policies=structure.policies + policies,
    )


def _nearby(structure: Structure, chosen: Mapping[str, tuple[int, ...]]) -> str:
    """Which counts near the chosen ones fit together, where tied counts are what broke."""
    couplings = structure.couplings
    wished = {g.name: len(g) - len(chosen.get(g.name, ())) for g in structure.groups}
    kept = couplings.repair(wished, {g.name: np.arange(1, len(g) + 1) for g in structure.groups})
    names = [
        n
        for together in couplings.together()
        for n in together
        if any(kept[m] != wished[m] for m in together)
    ]
    if not names:
        return ""
    sizes = {g.name: f"{kept[g.name]} of {len(g)} {g.granularity}s" for g in structure.groups}
    ties = [
        couplings.words(c)
        for p in couplings.components
        for c in p.constraints
        if couplings.speaks_of(c, names)
    ]
    return f". Their counts are tied ({'; '.join(ties[:3])}); counts nearby that work: " + ", ".join(
        f"{name} {sizes[name]}" for name in names[:8]
    )


def _remove(group: PruneGroup, units: tuple[int, ...], aliases: Mapping[str, tuple[str, ...]]) -> RemoveUnits:
    if len(units) >= len(group):
        raise UsageError(
            f"removing {len(units)} of {len(group)} units would empty group {group.name!r}: keep one"
        )
    chosen = np.array(units)
    found: dict[int, tuple[int, ...]] = {}  # the slots of a group share most of their index arrays
    for slot in group.slots:
        if id(slot.index) not in found:
            found[id(slot.index)] = _rows(slot.index, chosen)
    removals = [
        Removal(name=name, dim=slot.dim, indices=found[id(slot.index)])
        for slot in group.slots
        for name in aliases[slot.name]
    ]
    return RemoveUnits(group=group.name, granularity=group.granularity, units=units, removals=tuple(removals))


def _rows(index: np.ndarray, chosen: np.ndarray) -> tuple[int, ...]:
    flat = index[chosen].ravel()
    if (flat[1:] > flat[:-1]).all():
        return tuple(flat.tolist())
    mark = np.zeros(int(flat.max()) + 1, dtype=bool)
    mark[flat] = True
    return tuple(np.flatnonzero(mark).tolist())
