"""Tables of times that several searches share."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penjing.core._groups import PruneGroup
from penjing.search._latency_table import LatencyTable, fit_table
from penjing.search._timed_before import observation_of, record_of
from penjing.structure import Structure


@dataclass(slots=True, kw_only=True)
class SharedTables:
    """Tables of times that several searches on the same clock use; each is learnt once, for the widest set of groups
    that was asked of a structure first. `predicted` is what the last network that was searched for takes by its table,
    in milliseconds; None where the budget was none of time. `recall` and `keep` give and take what was timed for a
    table, under a name, so that a search which is broken off goes on by the same times.
    """

    recall: Callable[[str], Mapping[str, Any] | None] = lambda name: None
    keep: Callable[[str, Mapping[str, Any]], object] = lambda name, timed: None
    known: dict[tuple[str, frozenset[str]], LatencyTable] = field(default_factory=dict)
    reference: float | None = None
    predicted: float | None = None

    def find(self, structure: Structure, groups: Sequence[PruneGroup]) -> LatencyTable | None:
        names = {g.name for g in groups}
        fitting = (
            t for (own, able), t in self.known.items() if own == structure.fingerprint and names <= able
        )
        return next(fitting, None)

    def load(self, structure: Structure, groups: Sequence[PruneGroup]) -> LatencyTable | None:
        """The table as `recall` has it."""
        timed = self.recall(_key(structure, groups))
        if timed is None:
            return None
        self.reference = timed["reference"]
        table = fit_table(structure, [observation_of(one) for one in timed["networks"]])
        self.known[structure.fingerprint, frozenset(g.name for g in groups)] = table
        return table

    def add(self, structure: Structure, groups: Sequence[PruneGroup], table: LatencyTable) -> None:
        self.known[structure.fingerprint, frozenset(g.name for g in groups)] = table
        networks = [record_of(one) for one in table.observations]
        self.keep(_key(structure, groups), {"reference": self.reference, "networks": networks})


def _key(structure: Structure, groups: Sequence[PruneGroup]) -> str:
    """A name for a structure and what of it may shrink."""
    told = json.dumps([structure.fingerprint, sorted(g.name for g in groups)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]
