"""Runs whose outputs do not tell all: what products give is compared too, and dead values are revived.

Signals fade on their way: an early error may change the outputs by less than what is allowed. So both runs tell what
every product gave. Where all that is kept of a value is zero (a ReLU that nothing passes, likely at high ratios),
nothing behind it shows a difference. There both replays, the masked original's and the smaller network's, get the same
random numbers instead, and every value that they compute is compared, call by call. So it is too where a value does not
depend on what it is computed from: a softmax or a norm over one element, attention between tokens all alike.
"""

import functools
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from penjing.core._graph import Graph, OpCall

aten = torch.ops.aten

CONTRACTIONS = {  # and where their two factors begin
    aten.mm: 0, aten.bmm: 0, aten.mv: 0, aten.convolution: 0,
    aten.addmm: 1, aten.baddbmm: 1, aten.addbmm: 1, aten.addmv: 1,
}  # fmt: skip
CHOICES = {aten._softmax, aten._safe_softmax, aten._log_softmax}
SURE = 1e-6  # what a softmax leaves to all others where it has chosen one
_ROW = 4093  # a prime: no stride of a picture's rows falls on the same weights
Measure = tuple[float, float]
KeptPart = Callable[[int, torch.Tensor], torch.Tensor]
Held = Mapping[int, torch.Tensor]


class Follower(Protocol):
    """Sees a replay call by call, and may give a call other inputs than it has."""

    def before(self, position: int, call: OpCall, held: Held) -> dict[int, torch.Tensor]: ...

    def after(self, position: int, call: OpCall, result: torch.Tensor) -> None: ...


def hides(graph: Graph) -> bool:
    """Whether some call gives the same whatever it is given: a softmax or a norm over a single element."""
    return any(_spans_one(graph, call) for call in graph.calls if call.op.overloadpacket in _NORMS)


def _spans_one(graph: Graph, call: OpCall) -> bool:
    shape, packet = graph.values[call.inputs[0]].shape, call.op.overloadpacket
    if not shape:
        return True
    if packet is aten.native_layer_norm:
        return math.prod(call.args[1]) == 1
    if packet is aten.native_group_norm:
        return math.prod(shape[1:]) == call.args[6]
    if packet is aten.native_batch_norm:
        return bool(call.args[5]) and math.prod(shape) == shape[1]
    return shape[call.args[1] % len(shape)] == 1


_NORMS = {
    aten._softmax, aten._log_softmax, aten._safe_softmax, aten.native_layer_norm, aten.native_group_norm,
    aten.native_batch_norm,
}  # fmt: skip


class Deaf:
    """Which second factors of contractions (by their memory) have met nothing but zeros so far, and whether tokens
    were all the same (in every table that is looked up for them: segment ids often are, beside words that are not).
    Told of softmaxes, whether one of them (in one head) chose a single place everywhere, whatever it was given.
    """

    def __init__(self) -> None:
        self._heard: dict[int, bool] = {}
        self._alike: dict[torch.Size, bool] = {}
        self._chosen = False

    def choose(self, packet: Any, result: torch.Tensor, dim: int) -> None:
        most = result.amax(dim)
        undecided = most < (-SURE if packet is aten._log_softmax else 1 - SURE)
        self._chosen |= not bool(undecided.any(-1 if undecided.dim() else None).all())

    def meet(self, packet: Any, args: Sequence[Any]) -> None:
        if packet is aten.embedding:
            ids = args[1]
            if self._alike.get(ids.shape, True):
                self._alike[ids.shape] = ids.numel() > 1 and bool((ids == ids.reshape(-1)[0]).all())
        elif packet in CONTRACTIONS:
            x, weight = args[CONTRACTIONS[packet] :][:2]
            place = weight.data_ptr()
            if not self._heard.get(place, False):
                self._heard[place] = _alive(x)

    def __bool__(self) -> bool:
        return self._chosen or any(self._alike.values()) or not all(self._heard.values())


def _alive(tensor: torch.Tensor) -> bool:
    if not tensor.numel():
        return True
    return bool(tensor[(0,) * (tensor.dim() - 1)].any()) or bool(tensor.any())


@dataclass(slots=True)
class Reviving:
    """Follows the masked original: revives what is dead, and remembers both that and what every call gave.

    `twins` leads from its calls to those of the smaller network; `kept` is the kept part of a value; `numbered` values
    hold places in a dim that shrinks, which are counted anew.
    """

    twins: Mapping[int, int]
    kept: KeptPart
    numbered: Container[int] = ()
    given: dict[int, dict[int, torch.Tensor]] = field(default_factory=dict)
    measures: dict[int, Measure] = field(default_factory=dict)
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(1))

    def before(self, position: int, call: OpCall, held: Held) -> dict[int, torch.Tensor]:
        if call.op.overloadpacket not in CONTRACTIONS or position not in self.twins:
            return {}
        found: dict[int, torch.Tensor] = {}
        for place, value in enumerate(call.inputs):
            tensor = held[value]
            if tensor.is_floating_point() and not self.kept(value, tensor).any():
                drawn = torch.randn(tensor.shape, generator=self.generator, dtype=torch.float64)
                found[value] = drawn.to(tensor.device, tensor.dtype)
                self.given.setdefault(self.twins[position], {})[place] = self.kept(value, found[value])
        return found

    def after(self, position: int, call: OpCall, result: torch.Tensor) -> None:
        if position in self.twins and _speaks(call) and call.outputs[0] not in self.numbered:
            self.measures[self.twins[position]] = measure(self.kept(call.outputs[0], result))


@dataclass(slots=True)
class Following:
    """Follows the smaller network's replay with what the other revived; `error` is the largest difference."""

    original: Reviving
    error: float = 0.0

    def before(self, position: int, call: OpCall, held: Held) -> dict[int, torch.Tensor]:
        given = self.original.given.get(position, {})
        return {call.inputs[place]: tensor.to(held[call.inputs[place]]) for place, tensor in given.items()}

    def after(self, position: int, call: OpCall, result: torch.Tensor) -> None:
        told = self.original.measures.get(position)
        if told is not None:
            value, size = measure(result)
            self.error = max(self.error, abs(value - told[0]) / max(1.0, size, told[1]))


def _speaks(call: OpCall) -> bool:
    """Whether a call's first result is numbers it computed: fresh memory is not, nor views, which others write into."""
    blank, returned = "empty" in call.op.overloadpacket.__name__, call.op._schema.returns
    return bool(call.inputs and call.outputs) and not blank and returned[0].alias_info is None


@dataclass(slots=True)
class Told:
    """What every product of a run gave, in order: op, and a measure of the result."""

    products: list[tuple[Any, Measure]] = field(default_factory=list)

    def hear(self, packet: Any, result: torch.Tensor) -> None:
        if packet in CONTRACTIONS:
            self.products.append((packet, measure(result)))


@dataclass(slots=True)
class Hearing:
    """Follows the masked original and tells what the kept part of its products is.

    Where the other run takes attention in one piece, the products inside it are left out (`fused`).
    """

    kept: KeptPart
    fused: bool
    told: Told = field(default_factory=Told)

    def before(self, position: int, call: OpCall, held: Held) -> dict[int, torch.Tensor]:
        return {}

    def after(self, position: int, call: OpCall, result: torch.Tensor) -> None:
        packet = call.op.overloadpacket
        if packet in CONTRACTIONS and not (self.fused and call.function == "scaled_dot_product_attention"):
            self.told.hear(packet, self.kept(call.outputs[0], result))


def measure(tensor: torch.Tensor) -> Measure:
    """A weighted sum that every element has a share in, and the largest element."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0, 0.0
    flat = tensor.double().flatten()
    largest = _largest(flat)
    if not math.isfinite(largest):
        flat = flat.nan_to_num(0.0, 0.0, 0.0)
        largest = _largest(flat)
    return _mixed(flat) / math.sqrt(len(flat)), largest


def _largest(flat: torch.Tensor) -> float:
    least, most = torch.aminmax(flat)
    return max(-least.item(), most.item())


def _mixed(flat: torch.Tensor) -> float:
    """The sum of all numbers times weights that depend on their place: by rows of `_ROW`, then over the rows."""
    rows, rest = divmod(len(flat), _ROW)
    weights = _weights(_ROW, flat.device)
    found = torch.dot(flat[rows * _ROW :], weights[:rest]).item()
    if rows:
        sums = torch.mv(flat[: rows * _ROW].view(rows, _ROW), weights)
        found += torch.dot(sums, _weights(rows, flat.device)).item()
    return found


@functools.lru_cache(maxsize=64)
def _weights(count: int, device: torch.device) -> torch.Tensor:
    return torch.arange(1, count + 1, dtype=torch.float64, device=device).mul_(1.7).cos_()
