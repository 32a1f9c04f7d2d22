"""Fisher information of whole units: what the loss rises by, to second order, when one goes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core._groups import PruneGroup, Slot
from penjing.criteria._calibration import batches_of, gradients, loss_of
from penjing.criteria._consumers import reading_dims, structure_of
from penjing.criteria._registry import Context, Score, criterion

EXAMPLES = 8  # of a batch that share one backward pass


@criterion("fisher", in_loss="additive")
def fisher(model: nn.Module, context: Context) -> Score:
    """I_u = 1/(2 N) sum over examples of (dL_n/dm_u)^2, m_u a mask on unit u (Theis et al., "Faster gaze prediction
    with dense networks and Fisher pruning", 2018, eq. 6; one mask for all that goes with a unit, Liu et al., "Group
    Fisher pruning for practical network compression", ICML 2021, eq. 7).

    dL/dm_u is taken where the unit is read: the sum of w dL/dw over the columns of the layers that read it. It is taken
    per 8 examples, not per example: equal in expectation where the gradients' mean is 0, at an eighth of the cost. A
    batch that holds more than tensors with one row per example is one part. A unit that no layer's weights read counts
    with the mean over the weights that make it. Needs `calibration` and `loss`; costs a forward and backward pass
    per part, of at most 50 batches. It is about removing one unit alone.
    """
    batches = batches_of("fisher", context)
    first = next(batches)
    structure = structure_of(model, context, first)
    reading, parameters = reading_dims(structure), dict(model.named_parameters(remove_duplicate=False))
    slots = {g.name: _slots(g, reading, parameters) for g in structure.groups}
    total, examples = {g.name: np.zeros(len(g)) for g in structure.groups}, 0
    with gradients(model):
        for number, batch in enumerate((first, *batches)):
            for part, size in parts_of(batch):
                model.zero_grad(set_to_none=True)
                (loss_of(model, context, part, number) * size).backward()
                along = _products(parameters)
                for name, (read, times) in slots.items():
                    total[name] = total[name] + (times * sum(_per_unit(s, along) for s in read)) ** 2
                examples += size

    def score(group: PruneGroup, model: nn.Module) -> np.ndarray:
        return total[group.name] / (2 * examples)

    return score


def _slots(
    group: PruneGroup, reading: frozenset[tuple[str, int]], parameters: Mapping[str, nn.Parameter]
) -> tuple[Sequence[Slot], float]:
    """Where the mask's gradient is read off, and the factor of their sum."""
    learned = [s for s in group.slots if s.name in parameters]
    read = [s for s in learned if (s.name, s.dim) in reading]
    if read:
        return read, 1.0
    made = [s for s in learned if parameters[s.name].dim() > 1] or learned
    return made, 1 / max(1, len(made))


def _products(parameters: Mapping[str, nn.Parameter]) -> Callable[[str, int], np.ndarray | None]:
    """The sum of w dL/dw per index of a parameter's dim; each taken once."""
    known: dict[tuple[str, int], np.ndarray | None] = {}

    def along(name: str, dim: int) -> np.ndarray | None:
        if (name, dim) not in known:
            weight, grad = parameters[name], parameters[name].grad
            others = [d for d in range(weight.dim()) if d != dim]
            found = None if grad is None else weight.detach() * grad
            if found is not None and others:
                found = found.sum(others)
            known[name, dim] = None if found is None else found.double().cpu().numpy()
        return known[name, dim]

    return along


def _per_unit(slot: Slot, along: Callable[[str, int], np.ndarray | None]) -> np.ndarray:
    values = along(slot.name, slot.dim)
    return np.zeros(len(slot.index)) if values is None else values[slot.index].sum(1)


def parts_of(batch: Any) -> Iterator[tuple[Any, int]]:
    """Parts of at most 8 examples with their sizes; a batch that cannot be taken apart is one part of size 1."""
    sizes = {t.shape[0] if t.dim() else 0 for t in _leaves(batch)}
    if len(sizes) != 1 or not _only_tensors(batch) or min(sizes) < 1:
        yield batch, 1
        return
    (size,) = sizes
    for start in range(0, size, EXAMPLES):
        stop = min(start + EXAMPLES, size)
        yield _rows(batch, start, stop), stop - start


def _leaves(item: Any) -> Iterator[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from _leaves(value)
    elif isinstance(item, (tuple, list)):
        for value in item:
            yield from _leaves(value)


def _only_tensors(item: Any) -> bool:
    values = item.values() if isinstance(item, Mapping) else item
    plain = type(item) in (dict, tuple, list)
    return isinstance(item, torch.Tensor) or (plain and all(map(_only_tensors, values)))


def _rows(item: Any, start: int, stop: int) -> Any:
    if isinstance(item, torch.Tensor):
        return item[start:stop]
    if isinstance(item, Mapping):
        return {key: _rows(value, start, stop) for key, value in item.items()}
    return type(item)(_rows(value, start, stop) for value in item)
