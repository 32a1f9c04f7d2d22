"""Forwards that walk in step: every batch of the calibration stops where the next parameter meets its data.

Each forward is a thread of its own that runs only while it is sent on, one at a time and in a fixed order. So code of
any network runs as it is, once per batch, and what was changed at one stop is seen by all forwards from there on.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Station = Any
Watch = Callable[[Any, Any, Any, Callable[[], Any], Callable[[Station], None]], Any]


class _Cancelled(BaseException):
    """Raised inside a forward that nobody waits for any more."""


class Walker:
    """A forward: `watch(op, args, kwargs, run, stop)` sees every operator, and may stop with a station to show."""

    def __init__(self, forward: Callable[[], Any], watch: Watch) -> None:
        self._forward, self._watch = forward, watch
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._cancelled = False
        self._error: BaseException | None = None
        self.station: Station = None
        self.done = False
        self._thread = threading.Thread(target=self._run, name="calibration", daemon=True)
        self._thread.start()

    def advance(self) -> Station:
        """Run up to the next station; None at the end of the forward. Raises what the forward raises."""
        if self.done:
            return None
        self.station = None
        self._go.release()
        self._back.acquire()
        if self._error is not None:
            raise self._error
        return self.station

    def cancel(self) -> None:
        if not self.done:
            self._cancelled = True
            self._go.release()
        self._thread.join()

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._cancelled:
                with torch.no_grad(), _Watching(self._watch, self._stop):
                    self._forward()
        except _Cancelled:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.done, self.station = True, None
            self._back.release()

    def _stop(self, station: Station) -> None:
        self.station = station
        self._back.release()
        self._go.acquire()
        if self._cancelled:
            raise _Cancelled


class _Watching(TorchDispatchMode):
    def __init__(self, watch: Watch, stop: Callable[[Station], None]) -> None:
        super().__init__()
        self._watch, self._stop = watch, stop

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return self._watch(func, args, kwargs, lambda: func(*args, **kwargs), self._stop)
