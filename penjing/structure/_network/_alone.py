"""One at a time: a trace puts stand-ins into the network itself, and a proof changes torch's default float type, which
all threads of a process share.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import overrides
from torch.utils import _python_dispatch as dispatch

_LOCK = threading.RLock()
_TYPES: list[
    torch.dtype
] = []  # torch's default float types before those who are inside came, outermost first


@contextmanager
def alone() -> Iterator[None]:
    """Inside, no other thread traces, cuts or proves.

    Afterwards torch's modes and its default float type are those of before: an interrupt (Ctrl-C) that comes while
    torch takes a mode off for a moment leaves them in disorder, and taking off what is not there hides the interrupt.
    """
    with _LOCK:
        functions, dispatches = _function_modes(), _dispatch_modes()
        _TYPES.append(torch.get_default_dtype())
        try:
            yield
        except Exception as error:
            interrupt = interrupted(error)
            if interrupt is None:
                raise
            raise interrupt from None
        finally:
            torch.set_default_dtype(_TYPES.pop())
            _restore(functions, _function_modes, overrides._push_mode, overrides._pop_mode)
            _restore(dispatches, _dispatch_modes, dispatch._push_mode, dispatch._pop_mode)


def _forked() -> None:
    """In a forked process nobody else is inside: a thread that was is not there to come out."""
    global _LOCK
    if _TYPES and not _LOCK._is_owned():  # type: ignore[attr-defined]
        torch.set_default_dtype(_TYPES[0])
        _TYPES.clear()
        _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def interrupted(error: BaseException | None) -> BaseException | None:
    """The interrupt that an error hides, if there is one."""
    while isinstance(error, (Exception, GeneratorExit)):
        error = error.__context__
    return error


def _function_modes() -> Sequence[Any]:
    return overrides._get_current_function_mode_stack()


def _dispatch_modes() -> Sequence[Any]:
    return dispatch._get_current_dispatch_mode_stack()


def _restore(
    before: Sequence[Any],
    modes: Callable[[], Sequence[Any]],
    push: Callable[[Any], object],
    pop: Callable[[], object],
) -> None:
    now = modes()
    same = next((i for i, (a, b) in enumerate(zip(before, now, strict=False)) if a is not b), None)
    shared = min(len(before), len(now)) if same is None else same
    for _ in now[shared:]:
        pop()
    for mode in before[shared:]:
        push(mode)
