"""Edits of structure: what a plan is made of."""

import math
from dataclasses import dataclass

from penjing.core._errors import PlanError


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Indices taken out of one dim of one tensor, in the original's coordinates, sorted."""

    name: str
    dim: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveUnits:
    """Units of one group, with every slice that goes with them (all aliases of tied tensors named)."""

    group: str
    granularity: str
    units: tuple[int, ...]
    removals: tuple[Removal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAttribute:
    """An integer a module keeps about sizes; `path` leads on from the attribute into the object it holds."""

    module: str
    attribute: str
    path: tuple[str | int, ...] = ()
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DropBlock:
    """A module that becomes the identity; `tensors` are the names that vanish, with their first dim."""

    module: str
    tensors: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceComponent:
    """A module that becomes a twin of ours with the same tensors; `kind` is a name in surgery's registry."""

    module: str
    kind: str


OptionValue = int | float | str | bool | tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustComponent:
    """Modules that become others: `kind` is a name in surgery's registry of adjustments, `options` is what it is told,
    sorted by name, and `tensors` are the names that vanish, with their first dim. What it makes has names of its own.

    Later edits speak of the network that it leaves. Its weights are computed from those of the modules alone.
    """

    kind: str
    modules: tuple[str, ...]
    options: tuple[tuple[str, OptionValue], ...] = ()
    tensors: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not self.modules or len(set(self.modules)) != len(self.modules):
            raise PlanError(
                f"adjustment {self.kind!r} names {self.modules}: it needs different modules, one or more"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeWeight:
    """A weight that the module computes in its forward (weight_norm, spectral_norm, any parametrization; `kind` says
    which) becomes a plain parameter of the name `tensor`, as it is in eval mode. Later edits speak of that parameter.
    """

    module: str
    tensor: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleTensor:
    """A tensor multiplied by `factor` at `indices` of one dim (None: everywhere), to make up for a constant that the
    code computes from a size. Named once however many names the tensor has.
    """

    name: str
    dim: int
    indices: tuple[int, ...] | None
    factor: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.factor) and self.factor > 0):
            raise PlanError(
                f"{self.name!r} is to be scaled by {self.factor}: a factor is positive and finite"
            )


Edit = RemoveUnits | SetAttribute | DropBlock | ReplaceComponent | ScaleTensor | MergeWeight | AdjustComponent
