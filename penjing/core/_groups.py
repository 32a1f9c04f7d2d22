"""What may shrink, what goes together, and what may not shrink and why."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Indices of one dim of one parameter or buffer."""

    name: str
    dim: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """Where a group's units live in one tensor dim: `index[unit]` are the indices unit `unit` owns.

    `index` is int64 of shape (units, indices per unit).
    """

    name: str
    dim: int
    index: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PruneGroup:
    """Units that are alike and tied to the same parameters.

    A unit goes from all its slots or from none. `fidelity` is "exact" (removing equals masking), "rescaled" (a
    constant computed from the size changes, and weights carry the factor that makes up for it) or "renormalized" (a
    normalisation spans the removed dim, its statistics are taken over what is kept). Which constants follow a size
    shows only once it has shrunk: before planning, such a group says "exact"; the plan then names its factors.
    `atoms` are the label ids of the units inside the structure that produced the group.
    """

    name: str
    granularity: str
    fidelity: str
    slots: tuple[Slot, ...]
    atoms: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.atoms)

    @property
    def units(self) -> tuple[tuple[Slice, ...], ...]:
        """Per unit, the exact slices that go with it."""
        return tuple(self.slices(unit) for unit in range(len(self)))

    def slices(self, unit: int) -> tuple[Slice, ...]:
        return tuple(Slice(name=s.name, dim=s.dim, indices=tuple(s.index[unit].tolist())) for s in self.slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """Indices of one parameter dim that may not shrink, with the cause a user can act on."""

    parameter: str
    dim: int
    cause: str
    module: str
    count: int
