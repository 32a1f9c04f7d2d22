"""Ctrl-C: at once where nothing can be lost, in order where a run must put its things down."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CODE = 130


def end_at_once() -> None:
    """From now on Ctrl-C ends the process with one line and exit 130, whatever it is doing."""
    if _ours():
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def in_order() -> Iterator[None]:
    """Within, the first Ctrl-C or polite kill raises `KeyboardInterrupt`; a second ends at once."""
    numbers = [signal.SIGTERM, *([signal.SIGINT] if _ours() else [])]

    def interrupt(*_: object) -> None:
        for number in numbers:
            signal.signal(number, _leave)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted(more: str = "") -> str:
    """The line that an interrupt leaves; it also shows the cursor that a drawn bar may have hidden."""
    return ("\x1b[?25h" if sys.stderr.isatty() else "") + f"interrupted{more}"


def _ours() -> bool:
    """Not where Ctrl-C is ignored, as for commands in the background."""
    return signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _leave)


def _leave(*_: object) -> None:
    os.write(2, f"{interrupted()}\n".encode())
    os._exit(CODE)
