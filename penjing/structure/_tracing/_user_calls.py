"""What user code asks of tensors while it is traced: sizes, devices, values, and the integers it calls with."""

from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode

from penjing.structure._network._provenance import Const, Expr, Size, TracedInt, expression
from penjing.structure._tracing._mixing import LITERALS, keep_literals
from penjing.structure._tracing._repeats import REPEATED, Book, Repeats


class Recorder(Book, Protocol):
    """What a trace knows of tensors (their value ids, what they hold) and is told of the user's call."""

    function: str
    provenance: bool
    sizes: tuple[tuple[int, Expr], ...]

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor: ...


_READS_SIZE, _READS_DEVICE, _READS_VALUES, _COUNTS, _TAKES_LITERALS, _SETS_DATA = range(6)
_SPECIAL: dict[Any, int] = {
    **dict.fromkeys(LITERALS, _TAKES_LITERALS),
    torch.Tensor.size: _READS_SIZE,
    torch.Tensor.shape.__get__: _READS_SIZE,  # type: ignore[attr-defined]
    torch.Tensor.device.__get__: _READS_DEVICE,  # type: ignore[attr-defined]
    torch.Tensor.tolist: _READS_VALUES,
    torch.Tensor.numpy: _READS_VALUES,
    torch.Tensor.numel: _COUNTS,
    torch.Tensor.__len__: _COUNTS,
    torch.Tensor.data.__set__: _SETS_DATA,  # type: ignore[attr-defined]
}


_Tensor: Any = torch.Tensor
_ASKS = frozenset({
    _Tensor.dim, _Tensor.is_floating_point, _Tensor.dtype.__get__, _Tensor.ndim.__get__, _Tensor.is_cuda.__get__,
    _Tensor.requires_grad.__get__, torch.is_floating_point, torch._assert,
})  # fmt: skip


class UserCalls(TorchFunctionMode):
    """Hands out sizes as `TracedInt`s, and remembers the integers the user's call was given. Stand-ins say that they
    lie on the CPU, so that code runs as it does there.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._repeats = Repeats(recorder)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, recorder = kwargs or {}, self._recorder
        if func in _ASKS:
            return func(*args, **kwargs)
        asked = self._repeats.ask(func, args, kwargs) if func in REPEATED else None
        if asked is not None:
            found = self._repeats.again(
                asked, tuple(asked.sizes) if recorder.provenance else (), args, kwargs
            )
            if found is not None:
                return found
        special = _SPECIAL.get(func)
        if special is not None:
            if special == _READS_DEVICE:
                found = func(*args)
                return torch.device("cpu") if found.type == "meta" else found
            if special == _READS_SIZE:
                found = func(*args, **kwargs)
                return self._sizes(found, args, kwargs) if recorder.provenance else found
            if special == _COUNTS:
                return self._count(func, args) if recorder.provenance else func(*args)
            if special == _READS_VALUES:
                args = (recorder.value_of(args[0]), *args[1:])
            elif special == _SETS_DATA:
                recorder.layouts.pop(id(args[0]), None)
            else:
                args, kwargs = keep_literals(func, args, kwargs)
        outer = recorder.function, recorder.sizes
        recorder.function = getattr(func, "__name__", "?")
        recorder.sizes = _int_leaves(args, kwargs) if recorder.provenance else ()
        try:
            result = func(*args, **kwargs)
        finally:
            recorder.function, recorder.sizes = outer
        if asked is not None:
            self._repeats.learn(asked, result)
        return result

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
