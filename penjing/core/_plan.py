"""The plan: an ordered, replayable list of edits."""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from types import MappingProxyType

from penjing.core._edit_json import edit_from_dict, edit_to_dict, list_of, text_of
from penjing.core._edits import AdjustComponent, DropBlock, Edit, Removal, RemoveUnits, ScaleTensor
from penjing.core._errors import PlanError

SCHEMA = 1
_Move = Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]


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

    def since(self, earlier: "Plan", fingerprint: str) -> "Plan":
        """What this plan does after `earlier`, which it begins with, in the coordinates of `earlier`'s result.

        `fingerprint` is that result's. `first.then(second).since(first, second.fingerprint)` has `second`'s edits.
        """
        if self.edits[: len(earlier.edits)] != earlier.edits or self.fingerprint != earlier.fingerprint:
            raise PlanError("a plan can only be told from one that it begins with")
        kept = _KeptIndices(earlier)
        return Plan(
            edits=tuple(kept.untranslate(edit) for edit in self.edits[len(earlier.edits) :]),
            fingerprint=fingerprint,
            skipped=self.skipped[len(earlier.skipped) :],
            policies=self.policies,
        )

    def stages(self) -> "tuple[Plan, ...]":
        """The plan in parts, each in the coordinates of what the parts before it leave: edits that work together, or
        adjustments in a row. Fingerprints are the whole plan's.
        """
        parts = [tuple(run) for _, run in groupby(self.edits, key=lambda e: isinstance(e, AdjustComponent))]
        if len(parts) < 2:
            return (self,)
        found, before = [], replace(self, edits=())
        for part in parts:
            whole = replace(self, edits=before.edits + part)
            found.append(whole.since(before, self.fingerprint))
            before = whole
        return tuple(found)

    def to_json(self) -> str:
        body = {
            "schema": SCHEMA,
            "fingerprint": self.fingerprint,
            "edits": [edit_to_dict(e) for e in self.edits],
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
                edits=tuple(edit_from_dict(e) for e in list_of(body["edits"])),
                fingerprint=text_of(body["fingerprint"]),
                skipped=tuple(
                    Skipped(group=text_of(s["group"]), cause=text_of(s["cause"]))
                    for s in list_of(body["skipped"])
                ),
                policies=tuple(text_of(p) for p in list_of(body["policies"])),
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
    elif isinstance(edit, DropBlock | AdjustComponent):
        yield from ((name, 0, range(size)) for name, size in edit.tensors)


class _KeptIndices:
    """Maps indices of a plan's result to the original, and back."""

    def __init__(self, plan: Plan) -> None:
        self._removed = plan.removed

    def translate(self, edit: Edit) -> Edit:
        return self._moved(edit, _among_all, 1)

    def untranslate(self, edit: Edit) -> Edit:
        return self._moved(edit, _among_kept, -1)

    def _moved(self, edit: Edit, among: _Move, sign: int) -> Edit:
        if isinstance(edit, RemoveUnits):
            removals = tuple(
                Removal(name=r.name, dim=r.dim, indices=among(r.indices, self._gone(r.name, r.dim)))
                for r in edit.removals
            )
            return replace(edit, removals=removals)
        if isinstance(edit, DropBlock | AdjustComponent):
            return replace(
                edit, tensors=tuple((n, size + sign * len(self._gone(n, 0))) for n, size in edit.tensors)
            )
        if isinstance(edit, ScaleTensor) and edit.indices is not None:
            return replace(edit, indices=among(edit.indices, self._gone(edit.name, edit.dim)))
        return edit

    def _gone(self, name: str, dim: int) -> tuple[int, ...]:
        return self._removed.get(name, {}).get(dim, ())


def _among_all(indices: tuple[int, ...], gone: tuple[int, ...]) -> tuple[int, ...]:
    """Sorted indices of what is left without `gone`, among all."""
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


def _among_kept(indices: tuple[int, ...], gone: tuple[int, ...]) -> tuple[int, ...]:
    """The inverse: indices among all, none of which is `gone`, among what is left."""
    return tuple(index - bisect_left(gone, index) for index in indices)
