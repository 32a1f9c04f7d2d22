"""Weights that one forward reads again and again, as recurrent layers do: refitted from the original's own data.

They cannot wait for what comes in once they have changed, since that depends on them. So the kept inputs of the
original are given the original's outputs: W_S' = W_S + W_P C_PS (C_SS + lambda I)^-1, means in the bias.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.recover._refit import Sums
from penjing.structure import Parameters, Product, Rows, kept_inputs, kept_outputs, product

Hear = Callable[[Product, Any], None]


class _Listening(TorchDispatchMode):
    def __init__(self, parameters: Parameters, names: Iterable[str], hear: Hear) -> None:
        super().__init__()
        self._parameters, self._names, self._hear = parameters, frozenset(names), hear
        self._rows = Rows()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        item = product(func, args, kwargs, self._parameters, self._rows)
        self._rows.note(func, args, result)
        if item is not None and item.name in self._names:
            self._hear(item, result)
        return result


@torch.no_grad()
def original_sums(
    forwards: Iterable[Callable[[], Any]],
    parameters: Parameters,
    names: Iterable[str],
    removed: Mapping[str, Mapping[int, tuple[int, ...]]],
    held_out: Callable[[int], bool],
    chosen: Callable[[int, Product], Tensor | None],
    biased: Collection[str],
) -> dict[str, tuple[Sums, Sums]]:
    """Per weight the sums of the original's kept inputs and outputs, learned and held out; the outputs with their bias
    for those that are `biased`, which may change theirs."""
    found: dict[str, tuple[Sums, Sums]] = {name: (Sums(), Sums()) for name in names}
    kept: dict[str, tuple[Tensor | None, Tensor | None]] = {}
    for number, forward in enumerate(forwards):

        def hear(item: Product, y: Tensor, number: int = number) -> None:
            name, lost, whole = item.name, removed.get(item.name, {}), parameters.tensors[item.name]
            if name not in kept:
                kept[name] = kept_inputs(item, lost, whole), kept_outputs(item, lost, whole)
            inputs, outputs = kept[name]
            places = chosen(number, item)
            phi = item.phi(places)
            phi = phi if inputs is None else phi.index_select(2, inputs)
            wanted = item.results(y, places, outputs)
            if item.bias is not None and name not in biased:
                wanted = wanted - item.added(places, outputs)
            found[name][held_out(number)].add(_precise(phi), _precise(wanted))

        with _Listening(parameters, found, hear):
            forward()
    return found


def _precise(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype is torch.float64 else tensor.float()
