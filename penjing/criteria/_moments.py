"""What comes in along every dim that a layer sums over: sums and sums of squares over the calibration data.

Products are found as they run, whatever module they belong to. Padded positions do not count, where a mask among the
inputs says which they are and the layer's data is laid out as [batch, position] or [position, batch].
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.criteria._calibration import evaluating, inputs_of, run_batch
from penjing.structure import every_path, fast_paths_off, kernels_written_out, named_parameters
from penjing.tasks import at_length, padding_mask

aten = torch.ops.aten
_RESHAPES = (aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias)


@dataclass(slots=True)
class Moments:
    """Per index of a dim: how often it was met, its sum and its sum of squares [groups, indices], in float64.

    A convolution's groups read other channels at the same index; all else is one group.
    """

    count: int
    first: torch.Tensor
    second: torch.Tensor

    @property
    def mean_square(self) -> torch.Tensor:
        return self.second / max(1, self.count)

    @property
    def variance(self) -> torch.Tensor:
        return (self.mean_square - (self.first / max(1, self.count)) ** 2).clamp_(min=0)


@torch.no_grad()
def input_moments(model: nn.Module, batches: Iterator[Any]) -> dict[tuple[str, int], Moments]:
    """By parameter name and dim, in eval mode; bounded by one batch's activations."""
    found: dict[tuple[str, int], Moments] = {}
    names = {_place(p): name for name, p in reversed(list(named_parameters(every_path(model)))) if p.numel()}
    shapes = {name: p.shape for name, p in named_parameters(every_path(model))}
    with evaluating(model), fast_paths_off(), kernels_written_out():
        for number, batch in enumerate(batches):
            with _Watching(names, shapes, padding_mask(inputs_of(batch)), found):
                run_batch(model, batch, number)
    return found


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Watching(TorchDispatchMode):
    def __init__(
        self,
        names: dict[int, str],
        shapes: dict[str, torch.Size],
        mask: torch.Tensor | None,
        found: dict[tuple[str, int], Moments],
    ) -> None:
        super().__init__()
        self._names, self._shapes, self._mask, self._found = names, shapes, mask, found
        self._before: dict[int, tuple[torch.Tensor, torch.Size]] = {}  # a view, kept alive, and what it is of

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        if packet is aten.convolution:
            self._convolution(*args)
        elif packet in (aten.mm, aten.bmm):
            self._product(args[0], args[1])
        elif packet in (aten.addmm, aten.baddbmm):
            self._product(args[1], args[2])
        result = func(*args, **(kwargs or {}))
        if self._mask is not None and packet in _RESHAPES and args[0].dim() > 2:
            self._before[id(result)] = (result, args[0].shape)
        return result

    def _name(self, item: torch.Tensor) -> str | None:
        return self._names.get(_place(item)) if item.numel() else None

    def _convolution(
        self, x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any,
        transposed: bool, output_padding: Any, groups: int,
    ) -> None:  # fmt: skip
        name = self._name(weight)
        if name is None or weight.shape != self._shapes[name] or (groups > 1 and weight.shape[1] == 1):
            return
        dim = 0 if transposed else 1
        rows = x.movedim(1, -1)
        if rows.dim() == 3 and self._mask is not None:
            mask = at_length(self._mask, rows.shape[0], rows.shape[1], rows.device) if (
                len(self._mask) == rows.shape[0]) else None  # fmt: skip
            rows = rows if mask is None else rows[mask]
        self._add((name, dim), rows.reshape(-1, 1 if transposed else groups, weight.shape[dim]))

    def _product(self, left: torch.Tensor, right: torch.Tensor) -> None:
        name = self._name(right)
        if name is not None and self._name(left) is None:
            self._matrix(name, right, -2, left)
        elif name is None and (name := self._name(left)) is not None:
            self._matrix(name, left, -1, right.mT)

    def _matrix(self, name: str, weight: torch.Tensor, axis: int, data: torch.Tensor) -> None:
        """The parameter's dim with the memory layout of the operand's axis; none for a part or a reshape of it."""
        shape, size = self._shapes[name], weight.shape[axis]
        strides = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
        alike = [d for d, n in enumerate(shape) if n == size and strides[d] == weight.stride(axis)]
        if len(alike) == 1 and data.shape[-1] == size:
            self._add((name, alike[0]), self._real(data).unsqueeze(1))

    def _real(self, data: torch.Tensor) -> torch.Tensor:
        """The rows that are no padding."""
        held = self._before.get(id(data))
        if self._mask is None or held is None or data.dim() != 2 or held[0] is not data:
            return data.flatten(0, -2)
        shape, batch = held[1], len(self._mask)
        lead = next((shape[:k] for k in range(2, len(shape)) if math.prod(shape[:k]) == len(data)), ())
        if lead and lead[0] == batch:
            return data[at_length(self._mask, batch, len(data) // batch, data.device).flatten()]
        if len(lead) == 2 and lead[1] == batch:
            return data[at_length(self._mask, batch, lead[0], data.device).T.flatten()]
        return data

    def _add(self, key: tuple[str, int], rows: torch.Tensor) -> None:
        """`rows` are [positions, groups, indices]."""
        values = rows.double() if not rows.is_complex() else rows.abs().double()
        first, second = values.sum(0), values.square().sum(0)
        held = self._found.get(key)
        if held is None:
            self._found[key] = Moments(len(values), first, second)
        else:
            held.count += len(values)
            held.first += first
            held.second += second
