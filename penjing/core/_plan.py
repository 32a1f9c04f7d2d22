"""Edits of structure, and the plan: the ordered, replayable list of them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

from penjing.core._errors import PlanError

SCHEMA = 1
MAX_INDEX = 2**40


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


Edit = RemoveUnits | SetAttribute | DropBlock | ReplaceComponent | ScaleTensor | MergeWeight


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A group that failed verification and was frozen."""

    group: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered edits in the original's coordinates, and the fingerprint of the original's structure."""

    edits: tuple[Edit, ...]
    fingerprint: str
    skipped: tuple[Skipped, ...] = ()
    policies: tuple[str, ...] = ()
    _removed: dict[str, dict[int, tuple[int, ...]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def removed(self) -> Mapping[str, Mapping[int, tuple[int, ...]]]:
        """name -> dim -> removed indices, sorted, in the original's coordinates; a dropped tensor lists dim 0.

        A merged weight (`MergeWeight`) goes by its merged name, `conv.weight` rather than what it was computed from.
        """
        if not self._removed:
            self._removed.update(_joined(self.edits))
        return MappingProxyType({name: MappingProxyType(dims) for name, dims in self._removed.items()})

    @property
    def dropped(self) -> tuple[str, ...]:
        """Paths of the modules that become the identity."""
        return tuple(e.module for e in self.edits if isinstance(e, DropBlock))

    def then(self, later: "Plan") -> "Plan":
        """This plan followed by `later`, whose coordinates are those of this plan's result."""
        kept = _KeptIndices(self)
        moved = tuple(kept.translate(edit) for edit in later.edits)
        return Plan(
            edits=self.edits + moved,
            fingerprint=self.fingerprint,
            skipped=self.skipped + later.skipped,
            policies=tuple(dict.fromkeys(self.policies + later.policies)),
        )

    def to_json(self) -> str:
        body = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "edits": [_edit_to_dict(e) for e in self.edits],
            "skipped": [{"group": s.group, "cause": s.cause} for s in self.skipped],
            "policies": list(self.policies),
        }
        return json.dumps(body, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Plan":
        """Read what `to_json` wrote. Raises `PlanError` for anything malformed; never runs code."""
        try:
            body = json.loads(text)
            if body.get("schema") != SCHEMA:
                raise PlanError(
                    f"plan schema {body.get('schema')!r} is not {SCHEMA}: write it again with this version"
                )
            return Plan(
                edits=tuple(_edit_from_dict(e) for e in _listed(body["edits"])),
                fingerprint=_text(body["fingerprint"]),
                skipped=tuple(
                    Skipped(group=_text(s["group"]), cause=_text(s["cause"]))
                    for s in _listed(body["skipped"])
                ),
                policies=tuple(_text(p) for p in _listed(body["policies"])),
            )
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise PlanError(
                f"not a plan: {type(error).__name__} {error}; write it with Plan.to_json"
            ) from error


def _joined(edits: Iterable[Edit]) -> dict[str, dict[int, tuple[int, ...]]]:
    """Name -> dim -> removed indices; tensors that lose the same indices share one tuple."""
    found: dict[str, dict[int, list[Iterable[int]]]] = {}
    for edit in edits:
        for name, dim, indices in _removals(edit):
            found.setdefault(name, {}).setdefault(dim, []).append(indices)
    known: dict[tuple[int, ...], tuple[int, ...]] = {}
    for dims in found.values():
        for parts in dims.values():
            key = tuple(map(id, parts))
            if key not in known:
                known[key] = _together(parts)
    return {
        name: {dim: known[tuple(map(id, parts))] for dim, parts in sorted(dims.items())}
        for name, dims in sorted(found.items())
    }


def _together(parts: Sequence[Iterable[int]]) -> tuple[int, ...]:
    """Sorted indices of several removals, each of which is sorted already."""
    return tuple(parts[0]) if len(parts) == 1 else tuple(dict.fromkeys(sorted(chain.from_iterable(parts))))


def _removals(edit: Edit) -> Iterable[tuple[str, int, Iterable[int]]]:
    if isinstance(edit, RemoveUnits):
        yield from ((r.name, r.dim, r.indices) for r in edit.removals)
    elif isinstance(edit, DropBlock):
        yield from ((name, 0, range(size)) for name, size in edit.tensors)


class _KeptIndices:
    """Maps indices of a plan's result back to the original."""

    def __init__(self, plan: Plan) -> None:
        self._removed = plan.removed

    def translate(self, edit: Edit) -> Edit:
        if isinstance(edit, RemoveUnits):
            removals = tuple(
                Removal(name=r.name, dim=r.dim, indices=self._original(r.name, r.dim, r.indices))
                for r in edit.removals
            )
            return RemoveUnits(
                group=edit.group, granularity=edit.granularity, units=edit.units, removals=removals
            )
        if isinstance(edit, DropBlock):
            sizes = tuple((n, size + len(self._removed.get(n, {}).get(0, ()))) for n, size in edit.tensors)
            return DropBlock(module=edit.module, tensors=sizes)
        if isinstance(edit, ScaleTensor) and edit.indices is not None:
            return replace(edit, indices=self._original(edit.name, edit.dim, edit.indices))
        return edit

    def _original(self, name: str, dim: int, indices: tuple[int, ...]) -> tuple[int, ...]:
        gone = self._removed.get(name, {}).get(dim, ())
        if not gone:
            return indices
        moved, shift, following = [], 0, iter((*gone, None))
        nearest = next(following)
        for index in indices:
            while nearest is not None and nearest <= index + shift:
                shift += 1
                nearest = next(following)
            moved.append(index + shift)
        return tuple(moved)


def _edit_to_dict(edit: Edit) -> dict[str, Any]:
    if isinstance(edit, RemoveUnits):
        tensors = [{"name": r.name, "dim": r.dim, "indices": _pack(r.indices)} for r in edit.removals]
        return {
            "kind": "remove_units",
            "group": edit.group,
            "granularity": edit.granularity,
            "units": _pack(edit.units),
            "tensors": tensors,
        }
    if isinstance(edit, SetAttribute):
        return {
            "kind": "set_attribute",
            "module": edit.module,
            "attribute": edit.attribute,
            "path": list(edit.path),
            "value": edit.value,
        }
    if isinstance(edit, ReplaceComponent):
        return {"kind": "replace_component", "module": edit.module, "component": edit.kind}
    if isinstance(edit, MergeWeight):
        return {"kind": "merge_weight", "module": edit.module, "tensor": edit.tensor, "merged": edit.kind}
    if isinstance(edit, ScaleTensor):
        indices = None if edit.indices is None else _pack(edit.indices)
        return {
            "kind": "scale_tensor",
            "name": edit.name,
            "dim": edit.dim,
            "indices": indices,
            "factor": edit.factor,
        }
    return {"kind": "drop_block", "module": edit.module, "tensors": [list(t) for t in edit.tensors]}


def _edit_from_dict(body: Mapping[str, Any]) -> Edit:
    kind = body["kind"]
    if kind == "remove_units":
        return RemoveUnits(
            group=_text(body["group"]),
            granularity=_text(body["granularity"]),
            units=_unpack(body["units"]),
            removals=tuple(
                Removal(name=_text(t["name"]), dim=_size(t["dim"]), indices=_unpack(t["indices"]))
                for t in _listed(body["tensors"])
            ),
        )
    if kind == "set_attribute":
        steps = _listed(body["path"]) if "path" in body else [i for i in (body["item"],) if i is not None]
        return SetAttribute(
            module=_text(body["module"]),
            attribute=_text(body["attribute"]),
            path=tuple(step if isinstance(step, str) else _size(step) for step in steps),
            value=_size(body["value"]),
        )
    if kind == "drop_block":
        return DropBlock(
            module=_text(body["module"]),
            tensors=tuple((_text(n), _size(s)) for n, s in _listed(body["tensors"])),
        )
    if kind == "replace_component":
        return ReplaceComponent(module=_text(body["module"]), kind=_text(body["component"]))
    if kind == "merge_weight":
        return MergeWeight(
            module=_text(body["module"]), tensor=_text(body["tensor"]), kind=_text(body["merged"])
        )
    if kind == "scale_tensor":
        indices = body["indices"]
        return ScaleTensor(
            name=_text(body["name"]),
            dim=_size(body["dim"]),
            indices=None if indices is None else _unpack(indices),
            factor=_number(body["factor"]),
        )
    known = "remove_units, set_attribute, drop_block, replace_component, scale_tensor, merge_weight"
    raise PlanError(f"plan has an edit of unknown kind {kind!r}; known: {known}")


def _pack(indices: tuple[int, ...]) -> str:
    """Sorted indices as runs.

    >>> _pack((0, 1, 2, 7, 9, 10))
    '0-2,7,9-10'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ",".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)


def _unpack(text: Any) -> tuple[int, ...]:
    """The inverse of `_pack`; refuses unsorted, negative or giant runs.

    >>> _unpack("0-2,7,9-10")
    (0, 1, 2, 7, 9, 10)
    """
    if not isinstance(text, str):
        raise PlanError(f"plan indices must be text such as '0-2,7', not {text!r}")
    found: list[int] = []
    for run in text.split(",") if text else ():
        first, _, last = run.partition("-")
        start, stop = _size(int(first)), _size(int(last or first))
        if stop < start or (found and start <= found[-1]) or len(found) + stop - start > 10_000_000:
            raise PlanError(f"plan indices {run!r} are unsorted or too many")
        found.extend(range(start, stop + 1))
    return tuple(found)


def _number(value: Any) -> float:
    if not isinstance(value, float):
        raise PlanError(f"plan holds {value!r} where a number is meant")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PlanError(f"plan holds {value!r} where text is meant")
    return value


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise PlanError(f"plan holds {value!r} where a list is meant")
    return value


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_INDEX:
        raise PlanError(f"plan holds {value!r} where a size or an index is meant")
    return value
