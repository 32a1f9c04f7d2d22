"""Where the network ends and code that reads its results begins: pasting masks, looking up keypoints, decoding text.

A forward may read values once all its parameters have been used. It is followed up to the first value read; whatever
its code still holds there counts as an output, so what comes after meets the same shapes and the same values. The rest
runs once on ones in their place, to see that no parameter is used again.
"""

import dis
import gc
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_calls

from penjing.core import TraceError
from penjing.core._graph import ModuleCall

_PER_LOCAL = 2 if sys.version_info < (3, 13) else 1  # `f_locals` was a copy that held every value once more
_CONTAINERS = (dict, list, tuple, set)
_MOST_CALLS = 20_000


class ValueRead(TraceError):
    """Code asks for a value that only real data could give."""

    def __init__(self, how: str) -> None:
        super().__init__(
            f"it reads the value of a computed tensor ({how}): control flow that depends on data cannot be followed "
            "while parameters are still to be used. Leave what reads values (early exits, decoding text) outside the "
            "forward"
        )


@dataclass(slots=True)
class Ending:
    """The first value read after the last layer: what was recorded until then, and the values held there."""

    error: ValueRead
    module: str
    calls: int
    values: int
    outputs: tuple[int, ...]

    def allow(self, calls: int, parameter: bool) -> None:
        """Raises `ValueRead` if what comes after the end uses a parameter, or does not end."""
        if parameter:
            raise self.error
        if calls > self.calls + _MOST_CALLS:
            raise ValueRead("in a loop without end")

    def cut(self, module: ModuleCall) -> ModuleCall:
        """What of a module's call lies before the end."""
        kept = tuple(v for v in module.outputs if v < self.values)
        return module._replace(outputs=kept, last_op=min(module.last_op, self.calls))


def held(tensors: Sequence[torch.Tensor], until: CodeType) -> list[torch.Tensor]:
    """Those of `tensors` that the code in flight still holds, other than by local variables it reads no more.

    `tensors` itself may hold one more than once; the frames looked at end at that of `until`.
    """
    own = Counter(map(id, tensors))
    explained = _given_up(_frames(until), own)
    once = list({id(t): t for t in tensors}.values())
    return [t for t in once if _references(t) - 1 - own[id(t)] > explained[id(t)]]


def _references(item: Any) -> int:
    """How many hold `item`, without this call, the argument of its caller and the caller's loop."""
    return sys.getrefcount(item) - 3


def _frames(until: CodeType) -> Iterator[FrameType]:
    frame = sys._getframe(2)
    while frame is not None and frame.f_code is not until:
        yield frame
        frame = frame.f_back


def _given_up(frames: Iterator[FrameType], own: Counter[int]) -> Counter[int]:
    """id -> how many of its holders are local variables, and containers held by nothing else, that are read no more."""
    explained = Counter[int]()
    objects: dict[int, Any] = {}
    for frame in frames:
        live = _live_names(frame)
        for name, value in frame.f_locals.items():
            if name not in live:
                objects[id(value)] = value
                explained[id(value)] += _PER_LOCAL
            del value  # it would hold the last one once more
    waiting, opened = list(objects), set[int]()
    while waiting:
        key = waiting.pop()
        if key in opened or not _opens(objects[key]):
            continue
        if _references(objects[key]) > explained[key] + own[key]:
            continue
        opened.add(key)
        for item in gc.get_referents(objects[key]):
            objects[id(item)] = item
            explained[id(item)] += 1
            waiting.append(id(item))
            del item
    return explained


def _opens(item: Any) -> bool:
    """Containers, and plain objects with attributes: what they hold can be listed."""
    if isinstance(item, (torch.Tensor, nn.Module, type, FrameType)) or callable(item):
        return False
    return isinstance(item, _CONTAINERS) or hasattr(item, "__dict__")


def _live_names(frame: FrameType) -> set[str]:
    """Local variables that the rest of a function may read."""
    code = frame.f_code
    shared = {*code.co_cellvars, *code.co_freevars}
    if code.co_filename == module_calls.__file__:
        module = frame.f_locals.get("self")
        if not (isinstance(module, nn.Module) and module._forward_hooks):
            return shared  # how a module is called: only hooks meet its arguments again
    steps = list(dis.get_instructions(code))
    again = [
        s.argval
        for s in steps
        if s.offset > frame.f_lasti and "JUMP_BACKWARD" in s.opname and s.argval <= frame.f_lasti
    ]
    start = min([frame.f_lasti + 1, *again])
    read = (s.argval for s in steps if s.offset >= start and s.opname.startswith("LOAD_FAST"))
    return shared.union(*((names,) if isinstance(names, str) else names for names in read))
