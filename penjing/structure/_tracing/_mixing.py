"""Run one operator on a mixture of meta and real tensors."""

from collections.abc import Mapping
from typing import Any

import torch

from penjing.structure._tracing._endings import ValueRead
from penjing.structure._tracing._memo import MetaMemo
from penjing.structure._tracing._traits import traits_of

aten = torch.ops.aten


_INDEXING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
LITERALS = {torch.tensor, torch.as_tensor, torch.asarray, torch.Tensor.new_tensor, *_INDEXING}


def keep_literals(func: Any, args: Any, kwargs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Numbers written in the code stay real: on meta their values would be lost."""
    if func in _INDEXING:
        places = args[1] if isinstance(args[1], tuple) else (args[1],)
        real = tuple(torch.tensor(p) if isinstance(p, list) and _numbers(p) else p for p in places)
        return (args[0], real if isinstance(args[1], tuple) else real[0], *args[2:]), dict(kwargs)
    if func is torch.Tensor.new_tensor:
        return args, {**kwargs, "device": "cpu"}
    if not any(isinstance(a, torch.Tensor) for a in args) and kwargs.get("device") is not None:
        return args, {**kwargs, "device": "cpu"}
    return args, dict(kwargs)


def _numbers(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(i, (int, float, list)) for i in items)


def result_tensors(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [t for t in result if isinstance(t, torch.Tensor)]
    return []


class Mixing:
    """Runs ops on meta when any input is, else for real; integer factories asked for meta give real tensors.

    A real tensor that something unknown was written into is unknown from then on.
    """

    def __init__(self) -> None:
        self._on_meta = MetaMemo()
        self._unknown: set[int] = set()

    def __call__(self, func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
        if not any(map(self.is_unknown, tensors)):
            return _for_real(func, tensors, args, kwargs)
        traits = traits_of(func)
        if func is aten._local_scalar_dense.default:
            raise ValueRead(".item(), if tensor:, int(tensor)")
        if traits.fills and _gives_integers(kwargs):
            return func(*args, **{**kwargs, "device": torch.device("cpu")})
        if traits.steered and not any(map(self.is_unknown, tensors[1:])):
            return _on_zeros(func, args)
        if traits.mutable and not tensors[0].is_meta:
            return self._written(func, tensors, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        return self._on_meta(func, tensors, args, kwargs)

    def is_unknown(self, tensor: torch.Tensor) -> bool:
        return tensor.is_meta or (bool(self._unknown) and _storage(tensor) in self._unknown)

    def _written(self, func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
        if not any(t.is_meta for t in tensors):
            func(*args, **kwargs)
        if tensors[0].numel():
            self._unknown.add(_storage(tensors[0]))
        return args[0]


def _on_zeros(func: Any, args: Any) -> Any:
    """Ops whose other inputs, lengths or batch sizes, decide every shape: run for real, the data stays unknown."""
    data, second = func(torch.zeros(args[0].shape, dtype=args[0].dtype), *args[1:])
    return data.to("meta"), second.to("meta") if second.is_floating_point() else second


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _for_real(func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
    if kwargs.get("device") is None:
        return func(*args, **kwargs)
    floats = not tensors and _makes_floats(func, kwargs)
    return func(*args, **{**kwargs, "device": torch.device("meta" if floats else "cpu")})


def _gives_integers(kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    return dtype not in (None, torch.bool) and not dtype.is_floating_point and not dtype.is_complex


def _makes_floats(func: Any, kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    return func.overloadpacket is not aten.arange if dtype is None else dtype.is_floating_point
