"""How near a forward comes to what the machine could do: a bound per operator, from peaks measured on the spot."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from penjing.core import UsageError
from penjing.measure._clock import Stopwatch, undisturbed
from penjing.measure._macs import FORMULAS
from penjing.runtimes import ExampleInputs, as_call, prepare, steady, tensors_of

SIDE = 768  # of the matrices whose product tells the peak
COPIED = 1 << 25  # bytes, more than a core's caches hold
TRIES = 7
READINGS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """What the machine was seen to do at best, per millisecond: multiply-accumulates of a large float32 product, and
    bytes of a large copy (read and written); and the milliseconds of an operator on one element.
    """

    macs_per_ms: float
    bytes_per_ms: float
    overhead_ms: float

    def __post_init__(self) -> None:
        if min(self.macs_per_ms, self.bytes_per_ms, self.overhead_ms) <= 0:
            raise UsageError(f"peaks are positive: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpBound:
    """One executed operator: its multiply-accumulates, the bytes of all its tensors, and the least milliseconds that
    the peaks allow it. `by` says what holds it: "compute", "memory" or "overhead".
    """

    op: str
    macs: int
    bytes: int
    bound_ms: float
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The operators' bounds in the order they run, and the forward as it was timed.

    `bound_ms` is the sum over operators of max(2 MACs / peak, bytes / bandwidth) + overhead (Williams, Waterman &
    Patterson, Roofline, CACM 2009, operator by operator); `distance` is measured / bound.
    """

    peaks: Peaks
    operators: tuple[OpBound, ...]
    measured_ms: float
    threads: int
    batch_size: int

    @property
    def bound_ms(self) -> float:
        return sum(one.bound_ms for one in self.operators)

    @property
    def distance(self) -> float:
        return self.measured_ms / self.bound_ms

    def share(self, by: str) -> float:
        """The share of the bound in operators held by "compute", "memory" or "overhead"."""
        return sum(one.bound_ms for one in self.operators if one.by == by) / self.bound_ms

    def to_dict(self) -> dict[str, Any]:
        shares = {by: self.share(by) for by in ("compute", "memory", "overhead")}
        return {
            "bound_ms": self.bound_ms,
            "measured_ms": self.measured_ms,
            "distance": self.distance,
            "shares": shares,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "peaks": {
                name: getattr(self.peaks, name) for name in ("macs_per_ms", "bytes_per_ms", "overhead_ms")
            },
            "operators": [
                {"op": o.op, "macs": o.macs, "bytes": o.bytes, "bound_ms": o.bound_ms, "by": o.by}
                for o in self.operators
            ],
        }


def roofline(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    device: torch.device | str | None = None,
    peaks: Peaks | None = None,
    stopwatch: Stopwatch | None = None,
) -> Roofline:
    """The bound of one forward in eager PyTorch, operator by operator, and its distance from what was measured.

    `peaks` None measures them first, on the same device and threads. It is no lower bound in the strict sense: what
    caches hold moves faster than the copy that told the bandwidth, and an algorithm of fewer products (Winograd) can
    beat the count. It is no promise either: kernels for thin or odd shapes do not reach the peaks. UsageError where
    the network does not run on the inputs.
    """
    one = prepare(model, example_inputs, threads=threads, batch_size=batch_size, device=device)
    try:
        watch = stopwatch or undisturbed(one.device, one.threads)
        with steady(one.threads):
            found = peaks or measure_peaks(one.device, one.threads, watch)
            counted = _counted(one)
            for _ in range(2):
                one.run()
            measured = median(watch(one.run) for _ in range(READINGS))
    finally:
        one.close()
    operators = tuple(bound_of(op, macs, size, found) for op, macs, size in counted)
    return Roofline(
        peaks=found,
        operators=operators,
        measured_ms=measured,
        threads=one.threads,
        batch_size=one.batch_size,
    )


def bound_of(op: str, macs: int, size: int, peaks: Peaks) -> OpBound:
    """max(compute, memory) + overhead in milliseconds, for float32's peak whatever the dtype."""
    terms = {"compute": macs / peaks.macs_per_ms, "memory": size / peaks.bytes_per_ms}
    held = max(terms, key=lambda name: terms[name])
    by = held if terms[held] > peaks.overhead_ms else "overhead"
    return OpBound(op=op, macs=macs, bytes=size, bound_ms=terms[held] + peaks.overhead_ms, by=by)


def measure_peaks(device: torch.device, threads: int, watch: Stopwatch | None = None) -> Peaks:
    """The best of a few readings each, in the steady conditions of `threads` threads; takes about a second."""
    watch = watch or undisturbed(device, threads)
    with steady(threads):
        square = torch.rand(SIDE, SIDE, device=device)
        source = torch.zeros(COPIED // 4, device=device)
        target, single = torch.zeros_like(source), torch.zeros(1, device=device)
        product = min(watch(lambda: square @ square) for _ in range(TRIES))
        copied = min(watch(lambda: target.copy_(source)) for _ in range(TRIES))
        hundred = min(watch(lambda: [single + single for _ in range(100)]) for _ in range(TRIES))
    return Peaks(macs_per_ms=SIDE**3 / product, bytes_per_ms=2 * COPIED / copied, overhead_ms=hundred / 100)


def _counted(one: Any) -> Sequence[tuple[str, int, int]]:
    args, kwargs = as_call(one.inputs)
    with torch.inference_mode(False), torch.no_grad(), _Counted() as counted:
        one.model(*args, **kwargs)
    return counted.found


class _Counted(TorchDispatchMode):
    """MACs and bytes of every operator that moves or computes anything; views do neither."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, int, int]] = []
        own = {packet: shape_wrapper(count) for packet, count in FORMULAS.items()}
        self._formulas = {**flop_registry, **own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            formula = self._formulas.get(func.overloadpacket)
            macs = int(formula(*args, **(kwargs or {}), out_val=out)) // 2 if formula else 0
            tensors: dict[int, Tensor] = {id(t): t for t in tensors_of((args, kwargs or {}, out))}
            name = f"{func.namespace}.{func.overloadpacket.__name__}"
            self.found.append((name, macs, sum(t.numel() * t.element_size() for t in tensors.values())))
        return out
