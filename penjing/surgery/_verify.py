"""Proof that a smaller network equals the masked one: strict re-trace, then float64 exactness."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import PenjingError, PlanError, TraceError
from penjing.core._edits import AdjustComponent, DropBlock, MergeWeight
from penjing.core._groups import PruneGroup
from penjing.core._plan import Plan
from penjing.structure import ExampleInputs, Structure, Trace, alone, fingerprint, interrupted, trace
from penjing.surgery._adjusted import function_kept, misshapen
from penjing.surgery._adjustments import keeps_function, told
from penjing.surgery._apply import apply, carry_out_stage, named_states
from penjing.surgery._compare import constant_difference, structural_difference
from penjing.surgery._cut import retrace
from penjing.surgery._exact import Exactness, Subject, exactness
from penjing.surgery._precision import DOUBLE, SINGLE
from penjing.surgery._states import dense


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """Whether a smaller network is proven equal to the masked original.

    `max_error` is max|difference| / max(1, max|reference|) over all outputs (NaN when the check did not get that far);
    `checked` names the groups that lost units; `cause` says what failed, empty when passed. `precision` is the float
    type of the comparison: float64, or float32 for a network with kernels that know no float64, which then agrees to
    1e-5 instead of 1e-9. `shapes` are those of the tensors it ran on, example by example: heavy networks are compared
    on fewer pixels, frames and examples (see `verify`); `thinned` says that places were left out inside both networks
    instead. `adjusted` are the adjustments that change what the network computes, in words: of them it is proven that
    the network is the one that they make, not that it equals another. It says nothing about accuracy.
    """

    passed: bool
    max_error: float
    checked: tuple[str, ...]
    cause: str = ""
    precision: str = "float64"
    adjusted: tuple[str, ...] = ()
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = ()
    thinned: bool = False

    @property
    def note(self) -> str:
        """What a weaker proof than usual leaves open; empty for the usual one."""
        if self.precision == DOUBLE.name:
            return ""
        return (
            f"proven in {self.precision} to {SINGLE.tolerance:.0e} only, not in {DOUBLE.name} to "
            f"{DOUBLE.tolerance:.0e}: a kernel of this network knows no {DOUBLE.name}"
        )


def verify(
    model: nn.Module, slim: nn.Module, plan: Plan, example_inputs: ExampleInputs | list[ExampleInputs]
) -> Verification:
    """Check `slim` against `model` under `plan`. Refuses (not passed) weights that are not the original's slices.

    1. The plan removes whole units of the network's own groups. 2. Every tensor of `slim` is, bit for bit, the
    original's slice, times the plan's factors. 3. A re-trace of `slim` on the example inputs, in full, has the same op
    sequence (up to copies and axes of size 1), every predicted shape, and the original's constants but for those that
    exactly these factors make up for. 4. In float64, on random float inputs, `slim` equals the original's graph with
    the removed indices masked, to 1e-9: its outputs, and what every product and convolution on the way gives, since
    outputs of deep networks may hardly depend on their first layers. (Products are left out where the plan scales
    weights, where data chooses sizes, and inside fused attention.) Constant or tiny parameters (zero-initialised heads,
    layer scales) are randomised in both for this check.

    Where the network is heavy, 4 runs on fewer pixels, frames and examples (`Verification.shapes` says on which), if
    both networks do there what they do in full: same ops on the same values, same size of every dim that a group may
    shrink and of every frozen one that no input feeds, no dim collapsed to one place, and the same change of every
    integer that pruning changes.
    Where its code insists on its extent (position tables, assertions, token-mixing weights), places are left out inside
    instead (`Verification.thinned`): the original's graph and the graph of the re-trace in 3 both run in full up to a
    product, then on the same few places of dims that lose nothing. Everything that places are cut from is compared as a
    whole before. That run is of the operators that the re-trace saw `slim`'s code run, not of that code once more.
    Whatever fails on fewer places is compared in full, by `slim`'s own forward. A network with kernels that know no
    float64 is compared in float32, to 1e-5; `Verification.precision` says so.
    """
    try:
        with alone():
            if any(isinstance(edit, AdjustComponent) for edit in plan.edits):
                return _in_stages(model, slim, plan, example_inputs)
            base = _base(model, plan)
            structure = trace(base, example_inputs)
            return check(base, slim, structure, plan, example_inputs, expected=apply(model, plan))
    except PenjingError as error:
        return Verification(passed=False, max_error=float("nan"), checked=(), cause=str(error))


def _in_stages(model: nn.Module, slim: nn.Module, plan: Plan, example_inputs: Any) -> Verification:
    """What is proven of every stage together: the largest error, all groups, the first failure."""
    expected = apply(model, plan)
    cause = _foreign_weights(slim, expected, plan.removed)
    now, whole = model, Verification(passed=True, max_error=0.0, checked=())
    for number, part in enumerate(plan.stages()):
        if cause:
            break
        stage = replace(part, fingerprint=fingerprint(now))
        made = apply(now, stage) if number == 0 else carry_out_stage(now, stage)
        if any(isinstance(edit, AdjustComponent) for edit in stage.edits):
            found = _adjusted(now, made, stage, example_inputs)
        else:
            found = verify(now, made, stage, example_inputs)
        whole, cause, now = _together(whole, found), found.cause, made
    return replace(whole, passed=False, max_error=float("nan"), cause=cause) if cause else whole


def _adjusted(before: nn.Module, after: nn.Module, stage: Plan, example_inputs: Any) -> Verification:
    """That adjustments which claim to keep the function do, and that the network runs and gives what it gave."""
    edits = [edit for edit in stage.edits if isinstance(edit, AdjustComponent)]
    adjusted = tuple(told(edit) for edit in edits if not keeps_function(edit))
    verdict = Verification(passed=True, max_error=0.0, checked=(), adjusted=adjusted)
    cause = misshapen(before, after, example_inputs)
    if cause:
        return replace(verdict, passed=False, cause=cause)
    error, precision = function_kept(before, edits, example_inputs)
    if not error <= precision.tolerance:
        cause = f"an adjustment that is to keep the function changes it by {error:.2e}"
    return replace(verdict, passed=not cause, max_error=error, precision=precision.name, cause=cause)


def _together(first: Verification, second: Verification) -> Verification:
    single = SINGLE.name in (first.precision, second.precision)
    return Verification(
        passed=first.passed and second.passed,
        max_error=max(first.max_error, second.max_error),
        checked=first.checked + second.checked,
        adjusted=first.adjusted + second.adjusted,
        precision=SINGLE.name if single else first.precision,
        shapes=first.shapes + second.shapes,
        thinned=first.thinned or second.thinned,
    )


def _base(model: nn.Module, plan: Plan) -> nn.Module:
    """The original with only the plan's merged weights and dropped blocks."""
    kept = tuple(e for e in plan.edits if isinstance(e, (DropBlock, MergeWeight)))
    return apply(model, replace(plan, edits=kept)) if kept else model


def check(
    base: nn.Module,
    slim: nn.Module,
    structure: Structure,
    plan: Plan,
    example_inputs: Any,
    *,
    expected: nn.Module | None = None,
    retraced: Sequence[Trace] | None = None,
    exact: bool = True,
) -> Verification:
    """`verify` with the base network's structure, perhaps the re-traces too, already known; `exact=False` stops
    after the re-trace.
    """
    removed = plan.removed
    units = _removed_units(structure, removed, set(plan.dropped))
    gone = structure.gone(units)
    verdict = _Verdict(tuple(units))
    cause = _foreign_weights(slim, expected, removed) if expected is not None else ""
    if cause:
        return verdict.failed(cause)
    try:
        traces = retraced if retraced is not None else retrace(slim, example_inputs)
        cause = structural_difference(structure, gone, traces) or constant_difference(structure, traces, plan)
        if cause:
            return verdict.failed(cause)
        if not exact:
            return verdict.passed()
        return verdict.of(exactness(Subject(base, slim, structure, plan, gone, traces), example_inputs))
    except (TraceError, RuntimeError) as error:
        interrupt = interrupted(error)
        if interrupt is not None:
            raise interrupt from None
        return verdict.failed(f"the smaller network does not run: {error}")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What was found about the groups that lost units, in words."""

    checked: tuple[str, ...]

    def passed(self) -> Verification:
        return Verification(passed=True, max_error=float("nan"), checked=self.checked)

    def failed(self, cause: str, error: float = float("nan")) -> Verification:
        return Verification(passed=False, max_error=error, checked=self.checked, cause=cause)

    def of(self, found: Exactness) -> Verification:
        name, allowed = found.precision.name, found.precision.tolerance
        if found.error == float("inf"):
            return self.failed(
                f"outputs hold NaN or infinity in {name}, differ in shape or are empty: nothing can be proven",
                found.error,
            )
        if not found.error <= allowed:
            return self.failed(
                f"outputs differ from the masked network by {found.error:.2e} (allowed: {allowed:.0e})",
                found.error,
            )
        return Verification(
            passed=True,
            max_error=found.error,
            checked=self.checked,
            precision=name,
            shapes=found.shapes,
            thinned=found.thinned,
        )


def _removed_units(
    structure: Structure, removed: Mapping[str, Mapping[int, tuple[int, ...]]], dropped: set[str]
) -> dict[str, list[int]]:
    """Which whole units the plan removes. Raises `PlanError` if it removes anything else."""
    units: dict[str, list[int]] = {}
    aliases = {s.names[0]: s.names for s in structure.states}
    shapes = {name: s.shape for s in structure.states for name in s.names}
    marks = _marks(shapes, removed)
    owned: dict[tuple[str, int], list[np.ndarray]] = {}  # tensors of a group share most of their index arrays
    for group in structure.groups:
        lost = _lost(group, marks)
        if lost.any():
            units[group.name] = np.flatnonzero(lost).tolist()
            taken = {id(slot.index): slot.index for slot in group.slots}
            taken = {key: index[lost] for key, index in taken.items()}
            for slot in group.slots:
                for name in aliases[slot.name]:
                    owned.setdefault((name, slot.dim), []).append(taken[id(slot.index)])
    _refuse_parts(marks, owned)
    gone = tuple(f"{path}." for path in dropped)
    unknown = [name for name in removed if name not in shapes and not name.startswith(gone)]
    if unknown:
        raise PlanError(f"the plan removes indices of {unknown[0]!r}, which this network lacks")
    return units


def _lost(group: PruneGroup, marks: Mapping[tuple[str, int], np.ndarray]) -> np.ndarray:
    """Which units of a group lose every index they own."""
    lost = np.ones(len(group), dtype=bool)
    seen: set[tuple[int, int]] = set()
    for slot in group.slots:
        mark = marks.get((slot.name, slot.dim))
        if mark is None:
            return np.zeros(len(group), dtype=bool)
        if (id(mark), id(slot.index)) not in seen:
            seen.add((id(mark), id(slot.index)))
            lost &= mark[slot.index].all(1)
    return lost


def _refuse_parts(
    marks: Mapping[tuple[str, int], np.ndarray], owned: Mapping[tuple[str, int], list[np.ndarray]]
) -> None:
    """Raises `PlanError` where an index is removed that belongs to no unit which goes whole."""
    checked: set[tuple[int, ...]] = set()
    for (name, dim), mark in marks.items():
        parts = owned.get((name, dim), [])
        key = id(mark), *map(id, parts)
        if key in checked:
            continue
        checked.add(key)
        left = mark.copy()
        for part in parts:
            left[part] = False
        if left.any():
            raise PlanError(
                f"the plan removes index {int(np.argmax(left))} of dim {dim} of {name!r} without its whole unit"
            )


def _marks(
    shapes: Mapping[str, tuple[int, ...]], removed: Mapping[str, Mapping[int, tuple[int, ...]]]
) -> dict[tuple[str, int], np.ndarray]:
    """Per tensor dim, which of its indices are removed; one array for dims that lose the same."""
    found: dict[tuple[str, int], np.ndarray] = {}
    known: dict[tuple[int, int], np.ndarray] = {}
    for name, dims in removed.items():
        for dim, indices in dims.items() if name in shapes else ():
            if dim >= len(shapes[name]) or indices[-1] >= shapes[name][dim]:
                raise PlanError(
                    f"the plan removes index {indices[-1]} of dim {dim} of {name!r}: there is none"
                )
            size = shapes[name][dim]
            if (id(indices), size) not in known:
                known[id(indices), size] = mark = np.zeros(size, dtype=bool)
                mark[np.array(indices)] = True
            found[name, dim] = known[id(indices), size]
    return found


def _foreign_weights(slim: nn.Module, expected: nn.Module, removed: Container[str]) -> str:
    ours, theirs = dict(named_states(slim, removed)), dict(named_states(expected, removed))
    if ours.keys() != theirs.keys():
        return f"tensors differ from the plan's: {sorted(ours.keys() ^ theirs.keys())[:5]}"
    for name, tensor in theirs.items():
        other = ours[name]
        if other.shape != tensor.shape:
            return f"{name!r} has shape {tuple(other.shape)}, the plan gives {tuple(tensor.shape)}"
        if (
            not tensor.is_meta
            and not torch.equal(dense(other).to(tensor.device), dense(tensor))
            and not _both_nan(other, tensor)
        ):
            return f"{name!r} is not the original's slice: weights were trained or changed after pruning; verify before"
    return ""


def _both_nan(a: torch.Tensor, b: torch.Tensor) -> bool:
    a, b = dense(a), dense(b)
    return a.is_floating_point() and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b.to(a.device)))
