"""Edits as plain JSON, and back; nothing read from a file runs code."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penjing.core._edits import (
    AdjustComponent,
    DropBlock,
    Edit,
    MergeWeight,
    OptionValue,
    Removal,
    RemoveUnits,
    ReplaceComponent,
    ScaleTensor,
    SetAttribute,
)
from penjing.core._errors import PlanError

MAX_INDEX = 2**40


@dataclass(frozen=True, slots=True)
class _Codec:
    """How one kind of edit is written and read."""

    write: Callable[[Any], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], Edit]


def edit_to_dict(edit: Edit) -> dict[str, Any]:
    kind = _KINDS[type(edit)]
    return {"kind": kind, **_CODECS[kind].write(edit)}


def edit_from_dict(body: Mapping[str, Any]) -> Edit:
    """Raises `PlanError` for a kind that is not known or a field of another type, `KeyError` for one that lacks."""
    kind = body["kind"]
    codec = _CODECS.get(kind) if isinstance(kind, str) else None
    if codec is None:
        raise PlanError(f"plan has an edit of unknown kind {kind!r}; known: {', '.join(_CODECS)}")
    return codec.read(body)


def _units_to_dict(edit: RemoveUnits) -> dict[str, Any]:
    tensors = [{"name": r.name, "dim": r.dim, "indices": _pack(r.indices)} for r in edit.removals]
    return {
        "group": edit.group,
        "granularity": edit.granularity,
        "units": _pack(edit.units),
        "tensors": tensors,
    }


def _units(body: Mapping[str, Any]) -> RemoveUnits:
    removals = (
        Removal(name=text_of(t["name"]), dim=_size(t["dim"]), indices=_unpack(t["indices"]))
        for t in list_of(body["tensors"])
    )
    return RemoveUnits(
        group=text_of(body["group"]),
        granularity=text_of(body["granularity"]),
        units=_unpack(body["units"]),
        removals=tuple(removals),
    )


def _attribute_to_dict(edit: SetAttribute) -> dict[str, Any]:
    return {
        "module": edit.module,
        "attribute": edit.attribute,
        "path": list(edit.path),
        "value": edit.value,
    }


def _attribute(body: Mapping[str, Any]) -> SetAttribute:
    steps = list_of(body["path"]) if "path" in body else [i for i in (body["item"],) if i is not None]
    return SetAttribute(
        module=text_of(body["module"]),
        attribute=text_of(body["attribute"]),
        path=tuple(step if isinstance(step, str) else _size(step) for step in steps),
        value=_size(body["value"]),
    )


def _block_to_dict(edit: DropBlock) -> dict[str, Any]:
    return {"module": edit.module, "tensors": [list(t) for t in edit.tensors]}


def _block(body: Mapping[str, Any]) -> DropBlock:
    tensors = tuple((text_of(name), _size(size)) for name, size in list_of(body["tensors"]))
    return DropBlock(module=text_of(body["module"]), tensors=tensors)


def _component_to_dict(edit: ReplaceComponent) -> dict[str, Any]:
    return {"module": edit.module, "component": edit.kind}


def _component(body: Mapping[str, Any]) -> ReplaceComponent:
    return ReplaceComponent(module=text_of(body["module"]), kind=text_of(body["component"]))


def _scale_to_dict(edit: ScaleTensor) -> dict[str, Any]:
    indices = None if edit.indices is None else _pack(edit.indices)
    return {"name": edit.name, "dim": edit.dim, "indices": indices, "factor": edit.factor}


def _scale(body: Mapping[str, Any]) -> ScaleTensor:
    indices = body["indices"]
    return ScaleTensor(
        name=text_of(body["name"]),
        dim=_size(body["dim"]),
        indices=None if indices is None else _unpack(indices),
        factor=_number(body["factor"]),
    )


def _merge_to_dict(edit: MergeWeight) -> dict[str, Any]:
    return {"module": edit.module, "tensor": edit.tensor, "merged": edit.kind}


def _merge(body: Mapping[str, Any]) -> MergeWeight:
    return MergeWeight(
        module=text_of(body["module"]), tensor=text_of(body["tensor"]), kind=text_of(body["merged"])
    )


def _adjust_to_dict(edit: AdjustComponent) -> dict[str, Any]:
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in edit.options}
    return {
        "adjustment": edit.kind,
        "modules": list(edit.modules),
        "options": options,
        "tensors": [list(t) for t in edit.tensors],
    }


def _adjust(body: Mapping[str, Any]) -> AdjustComponent:
    options = body["options"]
    if not isinstance(options, dict):
        raise PlanError(f"plan holds {options!r} where an adjustment's options are meant")
    return AdjustComponent(
        kind=text_of(body["adjustment"]),
        modules=tuple(map(text_of, list_of(body["modules"]))),
        options=tuple(sorted((text_of(name), _option(value)) for name, value in options.items())),
        tensors=tuple((text_of(name), _size(size)) for name, size in list_of(body["tensors"])),
    )


def _option(value: Any) -> OptionValue:
    if isinstance(value, list):
        return tuple(_size(item) for item in value)
    if value is None or isinstance(value, bool | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _size(value)


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


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise PlanError(f"plan holds {value!r} where text is meant")
    return value


def list_of(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise PlanError(f"plan holds {value!r} where a list is meant")
    return value


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MAX_INDEX:
        raise PlanError(f"plan holds {value!r} where a size or an index is meant")
    return value


_KINDS: dict[type, str] = {
    RemoveUnits: "remove_units",
    SetAttribute: "set_attribute",
    DropBlock: "drop_block",
    ReplaceComponent: "replace_component",
    ScaleTensor: "scale_tensor",
    MergeWeight: "merge_weight",
    AdjustComponent: "adjust_component",
}
_CODECS = {
    "remove_units": _Codec(_units_to_dict, _units),
    "set_attribute": _Codec(_attribute_to_dict, _attribute),
    "drop_block": _Codec(_block_to_dict, _block),
    "replace_component": _Codec(_component_to_dict, _component),
    "scale_tensor": _Codec(_scale_to_dict, _scale),
    "merge_weight": _Codec(_merge_to_dict, _merge),
    "adjust_component": _Codec(_adjust_to_dict, _adjust),
}
