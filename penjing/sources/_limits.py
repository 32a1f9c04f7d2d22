"""How large a network may be that sizes from a recipe, a folder or an artifact ask for."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.nn.parameter import is_lazy

from penjing.core import SourceError, cut, physical_memory

LARGEST = 1_000_000_000
MOST: Mapping[str, int] = {
    r"(layers?|depths?|blocks?)$": 10_000,
    r"^(n|num)_|(labels|classes)$": 1_000_000,
}
MOST_VALUES = 20_000_000_000  # parameters and buffers
MOST_PARTS = 100_000  # modules, parameters and buffers
FIX = "Fix: give smaller sizes (model_args in a recipe)"


def refuse_sizes(values: Any, where: str) -> None:
    """Raises SourceError for whole numbers in nested `values` that no network has as a size, by what they are called.

    Building starts with lists as long as some of them say, before there is anything to count.
    """
    pending: list[tuple[str, Any]] = [("", values)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending.extend((str(key), inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            pending.extend((name, inner) for inner in value)
        elif isinstance(value, int) and value > _most(name):
            said = f"{value:,}" if value < 10**18 else "a number of more than 18 digits"
            raise SourceError(f"{where}: {cut(name)} is {said}; at most {_most(name):,} is built. {FIX}")


def _most(name: str) -> int:
    return next((most for pattern, most in MOST.items() if re.search(pattern, name)), LARGEST)


def counted(build: Callable[[], nn.Module], where: str) -> None:
    """Raises SourceError where `build` would make more than this machine can hold; no memory is used to find out.

    A network that cannot be built without values passes: the same limits hold while it is built.
    """
    try:
        with torch.random.fork_rng(devices=[]), bounded(where), torch.device("meta"):
            build()
    except TooLarge:
        raise
    except Exception:
        return


class TooLarge(SourceError):
    """More parts or values than are built."""


@contextmanager
def bounded(where: str) -> Iterator[None]:
    """Raises SourceError as soon as what this thread builds within has too many modules, tensors or values."""
    thread, parts, values, room = threading.get_ident(), 0, 0, most_values()

    def seen(_: nn.Module, name: str, part: Any) -> None:
        nonlocal parts, values
        if threading.get_ident() != thread or part is None:
            return
        parts += 1
        values += part.numel() if isinstance(part, Tensor) and not is_lazy(part) else 0
        if parts > MOST_PARTS:
            raise TooLarge(
                f"{where} would have more than {MOST_PARTS:,} modules and tensors, the most that is built. {FIX}"
            )
        if values > room:
            raise TooLarge(
                f"{where} would have more than {room:,} parameters, the most that is built here"
                f"{'' if room == MOST_VALUES else ' (what memory holds)'}. {FIX}"
            )

    handles = [
        hooks.register_module_module_registration_hook(seen),
        hooks.register_module_parameter_registration_hook(seen),
        hooks.register_module_buffer_registration_hook(seen),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def most_values() -> int:
    """How many float32 values this machine's memory holds, and no more than 20 thousand million."""
    return int(min(MOST_VALUES, physical_memory() // 4))
