"""Run one operator on a mixture of meta and real tensors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from penjing.core import TraceError
from penjing.core._graph import Ref
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


def _makes_floats(func: Any, kwargs: Mapping[str, Any]) -> bool:
    dtype = kwargs.get("dtype")
    return func.overloadpacket is not aten.arange if dtype is None else dtype.is_floating_point


def run(func: Any, tensors: list[torch.Tensor], args: Any, kwargs: Any, on_meta: MetaMemo) -> Any:
    """Run an op on meta when any input is, else for real; integer factories asked for meta give real tensors."""
    meta = [t.is_meta for t in tensors]
    if not any(meta):
        if kwargs.get("device") is not None and (tensors or not _makes_floats(func, kwargs)):
            kwargs = {**kwargs, "device": torch.device("cpu")}
        return func(*args, **kwargs)
    if func is aten._local_scalar_dense.default:
        raise TraceError(
            "it reads the value of a computed tensor (.item(), if tensor:, int(tensor)): control flow that depends "
            "on data cannot be followed"
        )
    if all(meta):
        return on_meta(func, tensors, args, kwargs)
    if func._schema.is_mutable and not tensors[0].is_meta:
        return args[0]
    to_meta: Callable[[torch.Tensor], torch.Tensor] = lambda t: t if t.is_meta else t.to("meta")  # noqa: E731
    args, kwargs = tree_map_only(torch.Tensor, to_meta, (args, kwargs))
    return func(*args, **kwargs)
