"""Trace, prune at half and prove one network; the figures of one row of the zoo.

The stages are those of `pj.prune` itself: its own calls are timed in place, every retry after a culprit included.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from benchmarks.networks import build

EXACT, FLOAT_ONLY = 1e-9, 1e-5


class Stopwatch:
    """CPU seconds spent in functions of `pj.prune`, and what the first trace returned."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.structure: Any = None

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                result = function(*args, **kwargs)
            finally:
                self.seconds[stage] += time.process_time() - started
            if stage == "trace":
                self.structure = result
            return result

        return timed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Everything inside counts; what is neither trace, surgery nor verify is choosing and planning."""
        from penjing.search import _prove, _prune

        started = time.process_time()
        with ExitStack() as stack:
            places = (
                ("trace", _prune, "trace_merged"),
                ("surgery", _prove, "cut"),
                ("verify", _prove, "check"),
            )
            for stage, place, name in places:
                stack.enter_context(patch.object(place, name, self.wrap(stage, getattr(place, name))))
            yield
        total = time.process_time() - started
        self.seconds["plan"] = total - sum(self.seconds[stage] for stage in ("trace", "surgery", "verify"))


def measure_one(spec: str) -> dict[str, Any]:
    import torch

    import penjing as pj
    from penjing.measure import count_macs, count_params

    torch.set_num_threads(1)
    model, example = build(spec)
    row: dict[str, Any] = {"status": "", "params": count_params(model), "macs": count_macs(model, example)}
    watch = Stopwatch()
    try:
        with watch.watching():
            slim, plan = pj.prune(model, example, ratio=0.5)
    except Exception as error:
        row["status"] = f"failed: {type(error).__name__}: {error}"
    row["seconds"] = {stage: watch.seconds[stage] for stage in ("trace", "plan", "surgery", "verify")}
    if watch.structure is not None:
        row |= shape_of(watch.structure)
    if row["status"]:
        return row
    proof = pj.verify(model, slim, plan, example)
    return row | {
        "status": status_of(proof),
        "error": proof.max_error,
        "skipped": [[s.group, s.cause] for s in plan.skipped],
        "policies": len(plan.policies),
        "params_kept": count_params(slim) / row["params"],
        "macs_kept": count_macs(slim, example) / max(1, row["macs"]),
    }


def status_of(proof: Any) -> str:
    if not proof.passed:
        return f"failed: {proof.cause}"
    if proof.max_error <= EXACT:
        return "verified"
    return "float-only" if proof.max_error <= FLOAT_ONLY else f"failed: error {proof.max_error:.1e}"


def shape_of(structure: Any) -> dict[str, Any]:
    """Groups, the share of parameter elements with at least one removable index, and why the rest stays."""
    import torch

    learned = [state for state in structure.states if state.learned]
    marks = {state.names[0]: torch.zeros(state.shape, dtype=torch.bool) for state in learned}
    for group in structure.groups:
        for slot in group.slots if len(group) > 1 else ():
            if slot.name in marks:
                marks[slot.name].index_fill_(slot.dim, torch.from_numpy(slot.index.ravel().copy()), True)
    total = sum(mark.numel() for mark in marks.values())
    fixed = {name: mark.numel() - int(mark.sum()) for name, mark in marks.items()}
    causes: Counter[str] = Counter()
    for name, count in fixed.items():
        if count:
            found = sorted({f.cause for f in structure.frozen if f.parameter == name})
            causes["; ".join(found) or "each unit is alone in its group"] += count
    return {
        "groups": len(structure.groups),
        "unknown_ops": list(structure.unknown_ops),
        "shrinkable": 1 - sum(fixed.values()) / max(1, total),
        "frozen": [[cause, count / total] for cause, count in causes.most_common(4)],
    }
