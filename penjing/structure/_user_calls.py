"""What user code asks of tensors while it is traced: sizes, devices, values, and the integers it calls with."""

from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from penjing.structure._mixing import LITERALS, keep_literals
from penjing.structure._provenance import Const, Expr, Size, TracedInt, expression


class Recorder(Protocol):
    """What a trace knows of tensors (their value ids, what they hold) and is told of the user's call."""

    ids: dict[int, int]
    function: str
    sizes: tuple[tuple[int, Expr], ...]

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor: ...


_SIZE_READS = {torch.Tensor.size, torch.Tensor.shape.__get__}  # type: ignore[attr-defined]
_DEVICE_READ = torch.Tensor.device.__get__  # type: ignore[attr-defined]
_VALUE_READS = {torch.Tensor.tolist, torch.Tensor.numpy}
_COUNT_READS = {torch.Tensor.numel, torch.Tensor.__len__}


class UserCalls(TorchFunctionMode):
    """Hands out sizes as `TracedInt`s, and remembers the integers the user's call was given. Stand-ins say that they
    lie on the CPU, so that code runs as it does there.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SIZE_READS:
            return self._sizes(func(*args, **kwargs), args, kwargs)
        if func in _COUNT_READS:
            return self._count(func, args)
        if func == _DEVICE_READ:
            found = func(*args)
            return torch.device("cpu") if found.type == "meta" else found
        if func in _VALUE_READS:
            args = (self._recorder.value_of(args[0]), *args[1:])
        if func in LITERALS:
            args, kwargs = keep_literals(func, args, kwargs)
        recorder = self._recorder
        outer = recorder.function, recorder.sizes
        recorder.function, recorder.sizes = getattr(func, "__name__", "?"), _int_leaves(args, kwargs)
        try:
            return func(*args, **kwargs)
        finally:
            recorder.function, recorder.sizes = outer

    def _sizes(self, found: Any, args: Any, kwargs: Any) -> Any:
        value = self._recorder.ids.get(id(args[0]))
        if value is None:
            return found
        if isinstance(found, int):
            dim = int(args[1] if len(args) > 1 else kwargs["dim"]) % args[0].dim()
            return TracedInt.of(found, Size(value, dim))
        return torch.Size(TracedInt.of(n, Size(value, i)) for i, n in enumerate(found))

    def _count(self, func: Any, args: Any) -> Any:
        sizes = self._sizes(args[0].size(), args, {})
        if func is torch.Tensor.__len__:
            return int(sizes[0])
        count: Any = 1
        for n in sizes:
            count = n * count
        return count


_NO_INTS = frozenset(
    {torch.Tensor, torch.nn.Parameter, float, bool, str, type(None), torch.dtype, torch.device}
)
_CONSTANTS = {n: Const(n) for n in range(-8, 65)}


def _int_leaves(args: Any, kwargs: Any) -> tuple[tuple[int, Expr], ...]:
    found: list[tuple[int, Expr]] = []
    _collect(args, found)
    if kwargs:
        _collect(kwargs.values(), found)
    return tuple(found)


def _collect(items: Any, found: list[tuple[int, Expr]]) -> None:
    for item in items:
        kind = type(item)
        if kind is int:
            found.append((item, _CONSTANTS.get(item) or Const(item)))
        elif kind is TracedInt:
            found.append((int(item), item.expr))
        elif kind in _NO_INTS:
            continue
        elif isinstance(item, (tuple, list)):
            _collect(item, found)
        elif kind is slice:
            _collect((item.start, item.stop, item.step), found)
        elif isinstance(item, int) and not isinstance(item, bool):
            found.append((int(item), expression(item)))
