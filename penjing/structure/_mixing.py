"""Run one operator on a mixture of meta and real tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from penjing.core._graph import Ref
from penjing.structure._endings import ValueRead
from penjing.structure._memo import MetaMemo

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


def tensors_in(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for item in (*args, *kwargs.values()):
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            found.extend(t for t in item if isinstance(t, torch.Tensor))
    return found


def with_refs(item: Any, ids: Mapping[int, int]) -> Any:
    if isinstance(item, torch.Tensor):
        return Ref(ids[id(item)])
    if isinstance(item, (list, tuple)):
        return tuple(with_refs(i, ids) for i in item)
    return item


def result_tensors(result: Any) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [t for t in result if isinstance(t, torch.Tensor)]
    return []


NEEDS_VALUES = frozenset({
    aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.multinomial, aten._is_all_true, aten._is_any_true,
})  # fmt: skip


class Mixing:
    """Runs ops on meta when any input is, else for real; integer factories asked for meta give real tensors.

    A real tensor that something unknown was written into is unknown from then on.
    """

    def __init__(self) -> None:
        self._on_meta = MetaMemo()
        self._unknown: set[int] = set()

    def __call__(self, func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
        if not any(self.is_unknown(t) for t in tensors):
            return _for_real(func, tensors, args, kwargs)
        if func is aten._local_scalar_dense.default:
            raise ValueRead(".item(), if tensor:, int(tensor)")
        if _fills_integers(func, kwargs):
            return func(*args, **{**kwargs, "device": torch.device("cpu")})
        if func in _STEERED and not self.is_unknown(tensors[1]):
            return _on_zeros(func, args)
        if func._schema.is_mutable and not tensors[0].is_meta:
            return self._written(func, tensors, args, kwargs)
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": torch.device("meta")}
        if all(t.is_meta for t in tensors):
            return self._on_meta(func, tensors, args, kwargs)
        args, kwargs = tree_map_only(torch.Tensor, _to_meta, (args, kwargs))
        return func(*args, **kwargs)

    def is_unknown(self, tensor: torch.Tensor) -> bool:
        return tensor.is_meta or (bool(self._unknown) and _storage(tensor) in self._unknown)

    def _written(self, func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
        if not any(t.is_meta for t in tensors):
            func(*args, **kwargs)
        if tensors[0].numel():
            self._unknown.add(_storage(tensors[0]))
        return args[0]


_STEERED = {aten._pack_padded_sequence.default, aten._pad_packed_sequence.default}


def _on_zeros(func: Any, args: Any) -> Any:
    """Ops whose second input, lengths or batch sizes, decides every shape: run for real, the data stays unknown."""
    data, steps = func(torch.zeros(args[0].shape, dtype=args[0].dtype), *args[1:])
    return data.to("meta"), steps


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _to_meta(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.is_meta else tensor.to("meta")


def _for_real(func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any) -> Any:
    if kwargs.get("device") is None:
        return func(*args, **kwargs)
    floats = not tensors and _makes_floats(func, kwargs)
    return func(*args, **{**kwargs, "device": torch.device("meta" if floats else "cpu")})


_FILLS = {aten.full_like, aten.zeros_like, aten.ones_like, aten.new_full, aten.new_zeros, aten.new_ones}


def _fills_integers(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the op makes integers known from the code alone, shaped like some tensor."""
    dtype = kwargs.get("dtype")
    integers = dtype is not None and not dtype.is_floating_point and not dtype.is_complex
    return integers and dtype is not torch.bool and func.overloadpacket in _FILLS


def _makes_floats(func: Any, kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    return func.overloadpacket is not aten.arange if dtype is None else dtype.is_floating_point
