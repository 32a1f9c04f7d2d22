"""One at a time: a trace puts stand-ins into the network itself, and a proof changes torch's default float type, which
all threads of a process share.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import overrides
from torch.utils import _python_dispatch as dispatch

_LOCK = threading.RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, no other thread traces, cuts or proves.

    Afterwards torch's modes are those of before: an interrupt (Ctrl-C) that comes while torch takes one off for a
    moment leaves them in disorder, and taking off what is not there hides the interrupt.
    """
    with _LOCK:
        functions, dispatches = _function_modes(), _dispatch_modes()
        try:
            yield
        except Exception as error:
            interrupt = interrupted(error)
            if interrupt is None:
                raise
            raise interrupt from None
        finally:
            _restore(functions, _function_modes, overrides._push_mode, overrides._pop_mode)
            _restore(dispatches, _dispatch_modes, dispatch._push_mode, dispatch._pop_mode)


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
