"""Calls that fill fresh tensors which nothing reads: modules that a forward builds and gives other weights."""

from collections.abc import Iterable, Sequence, Set
from itertools import accumulate

from penjing.core._graph import ModuleCall, OpCall
from penjing.structure._network._provenance import Size, leaves


def without_idle(
    calls: Sequence[OpCall], modules: Sequence[ModuleCall], outputs: Sequence[int]
) -> tuple[Sequence[OpCall], Sequence[ModuleCall]]:
    """The calls without those that make, view and fill a factory's tensor that no other call reads."""
    idle = _idle(calls, outputs)
    if not idle:
        return calls, modules
    kept = [position not in idle for position in range(len(calls))]
    before = [0, *accumulate(kept)]
    moved = [m._replace(first_op=before[m.first_op], last_op=before[m.last_op]) for m in modules]
    return [call for call, stays in zip(calls, kept, strict=True) if stays], moved


def _idle(calls: Sequence[OpCall], outputs: Sequence[int]) -> Set[int]:
    """Positions of the calls that reach no more than the tensor of one factory, if nothing else reads it."""
    factory: dict[int, int] = {}
    chains: dict[int, list[int]] = {}
    for position, call in enumerate(calls):
        if not call.inputs and call.outputs:
            chains[position] = [position]
            factory.update(dict.fromkeys(call.outputs, position))
            continue
        sources = {factory[value] for value in call.inputs if value in factory}
        if len(sources) == 1 and call.outputs and all(value in factory for value in call.inputs):
            (source,) = sources
            factory.update(dict.fromkeys(call.outputs, source))
            if source in chains:
                chains[source].append(position)
            continue
        for source in sources:
            chains.pop(source, None)
    idle = {position for chain in chains.values() for position in chain}
    measured = _measured(call for position, call in enumerate(calls) if position not in idle)
    for value in (*outputs, *measured):
        chains.pop(factory.get(value, -1), None)
    return {position for chain in chains.values() for position in chain}


def _measured(calls: Iterable[OpCall]) -> set[int]:
    """Values whose sizes these calls were given."""
    exprs = {expr for call in calls for _, expr in call.sizes}
    return {leaf.value for expr in exprs for leaf in leaves(expr) if isinstance(leaf, Size)}
