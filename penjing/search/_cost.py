"""Parameters, bytes and MACs of a network after a removal, from its labels alone: nothing is built or run."""

from math import prod
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import flop_registry

from penjing.core._graph import OpCall, Ref
from penjing.structure import State, Structure, kept_size


class CostModel:
    """Predicts complexity for the atoms that go.

    MACs count matrix products and convolutions (torch.utils.flop_counter's formulas, halved); they are not time.
    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._graph = structure.graph
        self._calls = [c for c in self._graph.calls if c.op.overloadpacket in flop_registry]
        self._dims = {v: structure.dims(v) for c in self._calls for v in (*c.inputs, *c.outputs)}
        atoms = structure.facts[0].atoms
        self._states = [
            (s, [atoms.expand(d) if d else d for d in s.labels or ((),) * len(s.shape)])
            for s in structure.states
        ]

    def params(self, gone: np.ndarray) -> int:
        """Learned parameters, each tensor once."""
        return sum(_elements(state, dims, gone) for state, dims in self._states if state.learned)

    def size(self, gone: np.ndarray) -> int:
        """Bytes of parameters and buffers, each tensor once."""
        return sum(
            _elements(state, dims, gone) * bytes_each(self._structure, state) for state, dims in self._states
        )

    def macs(self, gone: np.ndarray) -> int:
        """Multiply-accumulates of one forward on the example inputs."""
        return sum(self._flops(call, gone) for call in self._calls) // 2

    def _flops(self, call: OpCall, gone: np.ndarray) -> int:
        count = flop_registry[call.op.overloadpacket]
        args = [self._fill(a, gone) for a in call.args]
        kwargs = {k: self._fill(v, gone) for k, v in call.kwargs.items()}
        outputs = [self._shape(v, gone) for v in call.outputs]
        return int(count(*args, out_val=outputs[0], **kwargs))

    def _fill(self, item: Any, gone: np.ndarray) -> Any:
        return self._shape(item.value, gone) if isinstance(item, Ref) else item

    def _shape(self, value: int, gone: np.ndarray) -> tuple[int, ...]:
        shape = self._graph.values[value].shape
        return tuple(kept_size(d, gone, n) for d, n in zip(self._dims[value], shape, strict=True))


def bytes_each(structure: Structure, state: State) -> int:
    """Bytes of one element of a parameter or buffer."""
    return itemsize(structure.graph.values[structure.graph.states[state.names[0]]].dtype)


def itemsize(dtype: str) -> int:
    """
    >>> itemsize("torch.float32"), itemsize("torch.bool")
    (4, 1)
    """
    return getattr(torch, dtype.removeprefix("torch.")).itemsize


def _elements(state: State, dims: Any, gone: np.ndarray) -> int:
    return prod(int(kept_size(d, gone, n)) for d, n in zip(dims, state.shape, strict=True))
