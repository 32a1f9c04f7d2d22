"""Python's cyclic garbage collector walks every object that lives: pausing it keeps long traces linear."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic collection inside; reference counting goes on, so tensors are freed as ever."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def collect_young() -> None:
    """Free the cycles among objects made since the collector was paused."""
    gc.collect(0)
