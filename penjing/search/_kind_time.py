"""The time of a network from what it computes by kind, for runtimes that do not tell what single operators take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from penjing.search._extents import Extents
from penjing.search._node_time import nonnegative
from penjing.search._prices import Elements, Priced, macs_by_call
from penjing.structure import Structure

KINDS = 4  # that get a rate of their own: those with most MACs
THIN = 32  # MACs per element that it gives: a convolution of fewer (a depthwise one) is bound by memory


@dataclass(frozen=True, slots=True)
class Rated:
    """A part of the time: so many milliseconds for each of what `part` counts."""

    part: Priced
    rate: float

    @property
    def groups(self) -> frozenset[int]:
        return self.part.groups

    def cost(self, kept: Mapping[int, Any]) -> Any:
        return self.rate * self.part.cost(kept)


@dataclass(frozen=True, slots=True)
class One:
    """What is there once, at all widths."""

    groups: frozenset[int] = frozenset()

    def cost(self, kept: Mapping[int, Any]) -> float:
        return 1.0


def parts_by_kind(
    structure: Structure, counts: Sequence[Mapping[int, int]], milliseconds: Sequence[float]
) -> tuple[Rated, ...]:
    """milliseconds = fixed + sum over kinds of rate * MACs + rate * elements of all that operators give; no rate is
    negative. Operators of one name are of one kind, but thin convolutions (depthwise ones) of another than dense ones.
    """
    sizes = Extents(structure)
    kinds: dict[str, list[Priced]] = {}
    for name, part in _named(structure, sizes):
        kinds.setdefault(name, []).append(part)
    given = [v for call in structure.graph.calls for v in call.outputs]
    kinds["elements"] = [Elements(sizes.of_value(v)) for v in given]
    kinds["once"] = [One()]
    columns = {
        kind: np.array([sum(p.cost(kept) for p in parts) for kept in counts]) for kind, parts in kinds.items()
    }
    wanted = np.asarray(milliseconds, dtype=np.float64)
    a = np.stack(list(columns.values()), 1).astype(np.float64) / wanted[:, None]
    rates = nonnegative(a, np.ones(len(wanted)))[0]
    return tuple(
        Rated(part, float(rate))
        for rate, parts in zip(rates, kinds.values(), strict=True)
        for part in parts
        if rate
    )


def _named(structure: Structure, sizes: Extents) -> list[tuple[str, Priced]]:
    """The MACs of every operator under the name of its kind."""
    full = {i: len(g) for i, g in enumerate(structure.groups)}
    share: dict[str, float] = {}
    named: list[tuple[str, Priced]] = []
    for call, part in macs_by_call(structure, sizes):
        macs, given = part.cost(full), prod(structure.graph.values[call.outputs[0]].shape)
        thin = "convolution" in str(call.op) and macs < THIN * given
        name = f"{call.op} (thin)" if thin else str(call.op)
        share[name] = share.get(name, 0.0) + macs
        named.append((name, part))
    own = sorted(share, key=lambda kind: -share[kind])[:KINDS]
    return [(name if name in own else "others", part) for name, part in named]
