"""What the tracer must know of an op: looked up once per op, for the ops' own hashes are slow Python."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from penjing.structure._tracing._choices import MASKED, STEERED, chooses
from penjing.structure._tracing._shadows import RANDOM
from penjing.structure._tracing._shapes import QUICK

aten = torch.ops.aten

NEEDS_VALUES = frozenset({
    aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.nonzero, aten.masked_select, aten._unique2,
    aten.unique_dim, aten.unique_consecutive, aten.bincount, aten.multinomial, aten._is_all_true, aten._is_any_true,
})  # fmt: skip
_FILLS = {aten.full_like, aten.zeros_like, aten.ones_like, aten.new_full, aten.new_zeros, aten.new_ones}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traits:
    """`repeatable`: it returns new tensors only, or just its first argument, written to; `quick` tells its shapes."""

    op: Any
    mutable: bool
    masked: bool  # may be given a boolean mask
    chooses: bool  # gives a size that depends on values
    needs_values: bool
    random: bool
    fills: bool  # gives numbers known from the code alone, shaped like some tensor
    steered: bool  # its other inputs, lengths or batch sizes, decide every shape
    repeatable: bool
    fresh: bool  # returns new tensors only
    quick: Callable[..., Any] | None


_known: dict[int, Traits] = {}


def traits_of(op: Any) -> Traits:
    found = _known.get(id(op))
    if found is None or found.op is not op:
        found = _known[id(op)] = _look_up(op)
    return found


def _look_up(op: Any) -> Traits:
    packet, choosing = op.overloadpacket, chooses(op)
    return Traits(
        op=op,
        mutable=op._schema.is_mutable,
        masked=op in MASKED,
        chooses=choosing,
        needs_values=packet in NEEDS_VALUES or choosing,
        random=packet in RANDOM,
        fills=packet in _FILLS,
        steered=op in STEERED,
        repeatable=_repeatable(op),
        fresh=all(r.alias_info is None for r in op._schema.returns),
        quick=QUICK.get(op),
    )


def _repeatable(op: Any) -> bool:
    aliases = [r.alias_info for r in op._schema.returns]
    written = [a for a in op._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    if not written:
        return bool(aliases) and all(a is None for a in aliases)
    return len(written) == len(aliases) == 1 and written[0].name == op._schema.arguments[0].name
