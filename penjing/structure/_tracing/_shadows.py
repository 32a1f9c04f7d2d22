"""The real values of stand-ins that no float data decides: masks of ones, position tables, sizes in tensors.

They are computed when code reads one (`if mask.all():`), by running the recorded calls whose inputs are all known.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from penjing.core._graph import OpCall, Ref, Value

aten = torch.ops.aten

RANDOM = frozenset({
    aten.rand, aten.randn, aten.randint, aten.randperm, aten.rand_like, aten.randn_like, aten.randint_like,
    aten.bernoulli, aten.bernoulli_, aten.uniform_, aten.normal_, aten.multinomial, aten.native_dropout,
})  # fmt: skip
_LIKE = {aten.zeros_like: 0, aten.ones_like: 1, aten.new_zeros: 0, aten.new_ones: 1}


class Shadows:
    """Real values beside the recorded ones. Every call runs at most once, in the recorded order."""

    def __init__(self, calls: Sequence[OpCall], values: Sequence[Value]) -> None:
        self._calls, self._values = calls, values
        self._given: dict[int, torch.Tensor] = {}
        self._real: dict[int, torch.Tensor] = {}
        self._lost: set[int] = set()
        self._done = 0

    def hold(self, value: int, tensor: torch.Tensor) -> None:
        """A real tensor that no recorded call made."""
        self._given[value] = tensor

    def hold_ones(self, value: int) -> None:
        """Ones for a value that is not known, so that what is computed of it fits together."""
        if self.read([value]) is None:
            self._given[value] = torch.ones(self._values[value].shape, dtype=_dtype(self._values[value]))

    def read(self, values: Sequence[int]) -> list[torch.Tensor] | None:
        """What these values are, or None where float data or chance decides one of them."""
        with _disable_current_modes():
            while self._done < len(self._calls):
                self._step(self._calls[self._done])
                self._done += 1
            found = [self._known(value) for value in values]
        return None if any(f is None for f in found) else [f for f in found if f is not None]

    def _known(self, value: int) -> torch.Tensor | None:
        found = self._real.get(value)
        if found is None and value in self._given:
            found = self._real[value] = self._given[value].clone()
        return None if found is None or _storage(found) in self._lost else found

    def _step(self, call: OpCall) -> None:
        packet = call.op.overloadpacket
        if packet in _LIKE:
            made = self._values[call.outputs[0]]
            self._real[call.outputs[0]] = torch.full(made.shape, _LIKE[packet], dtype=_dtype(made))
            return
        inputs = {value: self._known(value) for value in call.inputs}
        if packet not in RANDOM and all(real is not None for real in inputs.values()):
            results = _run(call, {v: real for v, real in inputs.items() if real is not None})
            if results is not None:
                self._real.update(zip(call.outputs, results, strict=False))
                return
        written = self._real.get(call.inputs[0]) if call.op._schema.is_mutable and call.inputs else None
        if written is not None:
            self._lost.add(_storage(written))


def _dtype(value: Value) -> torch.dtype:
    return getattr(torch, value.dtype.removeprefix("torch."))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run(call: OpCall, inputs: Mapping[int, torch.Tensor]) -> list[torch.Tensor] | None:
    args = [_fill(a, inputs) for a in call.args]
    try:
        result = call.op(*args, **{k: _fill(v, inputs) for k, v in call.kwargs.items()})
    except (RuntimeError, NotImplementedError):
        return None
    several = result if isinstance(result, (tuple, list)) else (result,)
    return [r for r in several if isinstance(r, torch.Tensor)]


def _fill(item: Any, inputs: Mapping[int, torch.Tensor]) -> Any:
    if isinstance(item, Ref):
        return inputs[item.value]
    if isinstance(item, tuple):
        return [_fill(i, inputs) for i in item]
    return torch.device("cpu") if isinstance(item, torch.device) else item
