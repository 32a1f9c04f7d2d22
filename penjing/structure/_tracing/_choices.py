"""Ops whose output size only data can tell: every position is chosen, in a trace and in its proof alike.

A detector keeps the boxes that score well, a mixture of experts sends each token to the experts it scores for. How
many that is depends on data, which shapes do not: so everything is kept and sent. What the network computes of the
chosen is then followed and proven for this one choice, and so are the scores that a real run chooses by.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from penjing.core import TraceError

aten = torch.ops.aten

_NO_CHOICE = (
    "{} gives a size that depends on data, and no choice can stand in for it. Move it out of the forward, or give "
    "shapes that do not depend on values"
)

Result = torch.Tensor | tuple[torch.Tensor, ...]


def _of_one_kind(args: Sequence[Any]) -> Result:
    """The distinct values, the place of each element's value, and their counts: all elements are alike."""
    whole, (inverse, counted) = args[0], (*args[2:4], *(False,) * (4 - len(args)))[:2]
    places = torch.zeros(whole.shape if inverse else (0,), dtype=torch.long)
    counts = torch.full((1,) if counted else (0,), whole.numel())
    return torch.zeros(1, dtype=whole.dtype), places, counts


def _counted(args: Sequence[Any]) -> Result:
    """As many counts as the code asks for at least, or one; none where they weigh data."""
    if len(args) > 1 and args[1] is not None:
        raise TraceError(_NO_CHOICE.format("aten.bincount with weights"))
    return torch.zeros(max(1, args[2] if len(args) > 2 else 0), dtype=torch.long)


_EVERYTHING: dict[str, Callable[[Sequence[Any]], Result]] = {
    "aten::_unique2": _of_one_kind,
    "aten::nonzero": lambda args: torch.ones(args[0].shape, dtype=torch.bool).nonzero(),
    "aten::bincount": _counted,
    "torchvision::nms": lambda args: torch.arange(args[0].shape[0]),
}
STEERED = {
    aten._pack_padded_sequence.default, aten._pad_packed_sequence.default, aten._ctc_loss.default,
    aten._ctc_loss.Tensor,
}  # fmt: skip
MASKED = {
    aten.index.Tensor,
    aten._unsafe_index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten.masked_select.default,
}


@functools.cache
def chooses(func: Any) -> bool:
    """Whether the size of what the op gives depends on values."""
    return func._schema.name in _EVERYTHING or (
        torch.Tag.dynamic_output_shape in func.tags and func not in MASKED and func not in STEERED
    )


def everything(func: Any, args: Sequence[Any], *, spare_last: bool = False) -> Result:
    """What `func` gives when all its candidates are chosen; `spare_last` leaves out the last of a single row, which
    stands for 'none' where code that takes all of them runs out of its tables.

    Raises `TraceError` where nothing can stand in.
    """
    choice = _EVERYTHING.get(func._schema.name)
    if choice is None:
        raise TraceError(_NO_CHOICE.format(func))
    if spare_last and func.overloadpacket is aten.nonzero and args[0].dim() == 1 and len(args[0]) > 1:
        return choice([args[0][:-1]])
    return choice(args)


def has_mask(func: Any, args: Sequence[Any]) -> bool:
    """Whether the op reads or writes where a boolean tensor is true."""
    return func in MASKED and _is_mask(args[1])


def _is_mask(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return any(_is_mask(i) for i in item)
    return isinstance(item, torch.Tensor) and item.dtype in (torch.bool, torch.uint8)


def by_places(func: Any, args: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
    """The same op with masks turned into the places where they are true."""
    if func is aten.masked_select.default:
        whole, mask = torch.broadcast_tensors(args[0], args[1])
        return aten.index.Tensor, (whole, _places(mask))
    indices: list[Any] = []
    for item in args[1]:
        indices.extend(_places(item) if _is_mask(item) else [item])
    return func, (args[0], indices, *args[2:])


def _places(mask: torch.Tensor) -> list[torch.Tensor]:
    return list(aten.unbind.int(aten.nonzero.default(mask), 1))
