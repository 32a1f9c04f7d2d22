"""A network as it runs: what every runtime gives, and the conditions it is run under."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from penjing.core import UsageError

WARM_UP = 2  # runs before a profile that are thrown away
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, man 3 mallopt
_LARGEST = 32 << 20  # bytes: what glibc lets its threshold for maps grow to


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTime:
    """One executed operator and its time in each run of a profile, or the average where a runtime tells no more.

    `key` names the same operator in networks of the same structure at other widths; operators that a runtime adds for
    its own layouts come and go with the widths. `inputs` are shapes in the order the operator takes them, weights
    included, in the runtime's own layout (a convolution's weight may be padded to whole vectors).
    """

    key: str
    op: str
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    milliseconds: tuple[float, ...]


class Prepared(Protocol):
    """A network placed in a runtime, with fixed inputs and threads.

    `run` is what a stopwatch times, inside `steady` with the same threads; `outputs` runs once and gives every
    tensor of the answer, in order; `profile` times each operator in its own steady conditions (timing them costs time:
    their sum is more than a run) and is () where the runtime tells nothing. `note` says what the runtime could not do
    as asked, "" where nothing. `close` gives the network back as it was; several of one network are closed last first.
    """

    @property
    def runtime(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def threads(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def note(self) -> str: ...

    def run(self) -> Any: ...

    def outputs(self) -> tuple[Tensor, ...]: ...

    def profile(self, runs: int) -> tuple[NodeTime, ...]: ...

    def close(self) -> None: ...


@contextmanager
def steady(threads: int | None = None) -> Iterator[None]:
    """Inference mode, pinned threads, denormals flushed, freed memory kept, no garbage collection; all restored."""
    wanted = checked_threads(threads)
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(wanted)
    gc.disable()
    try:
        with torch.inference_mode(), own_denormals(), freed_memory_kept():
            torch.set_flush_denormal(True)
            yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()


@contextmanager
def own_denormals() -> Iterator[None]:
    """Whether denormals are flushed is restored: runtimes that flush theirs leave the calling thread so."""
    flushing = _flushes_denormals()
    try:
        yield
    finally:
        torch.set_flush_denormal(flushing)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Memory that a forward frees stays with the process for the next one, as with jemalloc or tcmalloc.

    glibc gives the end of its heap back to the system, whose pages then have to be asked for anew in every forward: up
    to a third of the time of a small network, by chance of where its tensors lie. Its thresholds cannot be read, so
    they are left where they end up by themselves after large tensors were freed.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    set_option = getattr(library, "mallopt", None)  # glibc's alone
    if set_option is None:
        yield
        return
    set_option(_MMAP_THRESHOLD, _LARGEST)
    set_option(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        set_option(_TRIM_THRESHOLD, 2 * _LARGEST)


def checked_threads(threads: int | None) -> int:
    """`threads`, or torch's present number where None."""
    if threads is not None and threads < 1:
        raise UsageError(f"at least 1 thread is needed, got threads={threads}")
    return threads or torch.get_num_threads()


def _flushes_denormals() -> bool:
    """Torch has a setter only, so a denormal is multiplied and looked at."""
    return (torch.full((), 1e-310, dtype=torch.float64, device="cpu") * 1.0).item() == 0.0
