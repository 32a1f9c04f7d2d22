"""One forward, watched: where each parameter is read, what is added to its products, and how much lives at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from penjing.structure._products import Parameters, Product, product

aten = torch.ops.aten
_NORMS = (
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten._native_batch_norm_legit,
)
_NOTHING = torch.empty(0)
_ADDS = (aten.add, aten.add_)
_RECURRENT = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "lstm_mps"}


class Place(NamedTuple):
    """An operator of a forward: the parameter whose product came last, how many operators since, and which ones."""

    after: str
    steps: int
    trail: int

    def then(self, op: Any) -> "Place":
        return Place(self.after, self.steps + 1, hash((self.trail, op)))


START = Place("", 0, 0)


class Norm(NamedTuple):
    """The tensors of a batch norm with running statistics: x -> (x - mean) / sqrt(var + eps) * weight + bias."""

    data: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor
    var: Tensor
    eps: float


def norm(op: Any, args: Sequence[Any]) -> Norm | None:
    """The call as a batch norm in eval mode; None for any other call."""
    if op.overloadpacket not in _NORMS or args[3] is None or args[5]:
        return None
    data, weight, bias, mean, var = args[:5]
    return Norm(data, weight, bias, mean, var, args[7])


@dataclass(slots=True)
class Meeting:
    """A parameter's product with data: the parameter of its bias, the batch norm that follows, and which operator gave
    the tensor that the result of both is added to (a residual stream); None where there is none. `positions` are those
    of this forward.
    """

    name: str
    number: int
    product: Product
    bias: str | None = None
    norm: Norm | None = None
    partner: Place | None = None
    positions: int = 0


@dataclass(slots=True)
class Survey:
    """What one forward did: `uses` counts the operators that read a parameter, `readers` are their names, `fused` says
    that recurrent kernels hide their products, `peak` the bytes that lived at once, `norms` the batch norms
    in order, each with its number of values per channel.
    """

    meetings: list[Meeting] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)
    readers: dict[str, dict[str, None]] = field(default_factory=dict)
    fused: bool = False
    peak: int = 0
    norms: list[tuple[Norm, int]] = field(default_factory=list)

    @property
    def once(self) -> dict[str, Meeting]:
        """The products of parameters that nothing else reads, in order."""
        return {name: met[0] for name, met in self._only().items() if len(met) == 1}

    @property
    def repeated(self) -> dict[str, Meeting]:
        """The first products of parameters that the same matrix product reads several times, and nothing else."""
        found = {name: met for name, met in self._only().items() if len(met) > 1}
        return {
            name: met[0]
            for name, met in found.items()
            if met[0].product.settings is None and len({m.product.weight.storage_offset() for m in met}) == 1
        }

    def _only(self) -> dict[str, list[Meeting]]:
        """The products of parameters that no other operator reads."""
        met: dict[str, list[Meeting]] = {}
        for meeting in self.meetings:
            met.setdefault(meeting.name, []).append(meeting)
        return {name: found for name, found in met.items() if len(found) == self.uses[name]}


def survey(forward: Callable[[], Any], parameters: Parameters) -> Survey:
    """Run `forward` once, without gradients, and see what it does."""
    with torch.no_grad(), _Surveying(parameters) as mode:
        forward()
    mode.close()
    return mode.found


class _Surveying(TorchDispatchMode):
    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.found, self._parameters = Survey(), parameters
        self._alive: dict[int, tuple[ref[Any], int]] = {}
        self._bytes = 0
        self._made: dict[int, tuple[int, Place]] = {}
        self._number, self._here = -1, START
        self._meeting: dict[int, Meeting] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self._note(func, args, given, results)
        return result

    def _note(self, func: Any, args: Sequence[Any], given: list[Tensor], results: list[Tensor]) -> None:
        self._number += 1
        number, found, self._here = self._number, self.found, self._here.then(func)
        found.fused |= func.overloadpacket.__name__ in _RECURRENT
        met = norm(func, args)
        if met is not None:
            found.norms.append((met._replace(data=_NOTHING), met.data.numel() // met.data.shape[1]))
        item = product(func, args, self._parameters)
        views = {_place(t) for t in results} & {_place(t) for t in given} and not func._schema.is_mutable
        for tensor in given:
            name = self._parameters.name(tensor)
            if name is not None and not views:
                found.uses[name] = found.uses.get(name, 0) + 1
                found.readers.setdefault(name, {})[_called(func, args)] = None
        self._connect(func, args, given, results, item, number)
        for tensor in results if not views else ():
            self._live(tensor)
            self._made[_place(tensor)] = number, self._here
        if item is not None:
            self._here = Place(item.name, 0, 0)

    def _connect(
        self,
        func: Any,
        args: Sequence[Any],
        given: list[Tensor],
        results: list[Tensor],
        item: Product | None,
        number: int,
    ) -> None:
        """Follow a product's result to its bias, its batch norm and the stream it is added to."""
        packet = func.overloadpacket
        if item is not None:
            name = self._parameters.name(item.bias) if item.bias is not None else None
            held = replace(item, data=_NOTHING)
            meeting = Meeting(item.name, number, held, name, positions=item.positions)
            self.found.meetings.append(meeting)
            self._meeting[_place(results[0])] = meeting
        elif packet in _NORMS and _place(args[0]) in self._meeting:
            meeting = self._meeting[_place(args[0])]
            meeting.norm = norm(func, args)
            if meeting.norm is not None:
                meeting.norm = meeting.norm._replace(data=_NOTHING)
                self._meeting[_place(results[0])] = meeting
        elif packet in _ADDS and len(given) == 2:
            self._added(given, results)

    def _added(self, given: list[Tensor], results: list[Tensor]) -> None:
        for own, other in ((given[0], given[1]), (given[1], given[0])):
            meeting = self._meeting.get(_place(own))
            if meeting is None or meeting.partner is not None:
                continue
            bias = self._parameters.name(other)
            if bias is not None and meeting.bias is None and meeting.norm is None and other.dim() == 1:
                meeting.bias = bias
                self._meeting[_place(results[0])] = meeting
                return
            whole = own.shape == other.shape and own.is_contiguous() == other.is_contiguous()
            made = self._made.get(_place(other))
            if bias is None and whole and made is not None and made[0] < meeting.number:
                meeting.partner = made[1]
                return

    def _live(self, tensor: Tensor) -> None:
        """Count the bytes of a tensor until its memory is given back; what is known of its place is forgotten then."""
        storage, place = tensor.untyped_storage(), _place(tensor)
        if place in self._alive:
            return
        self._alive[place] = ref(storage, partial(self._dead, place)), storage.nbytes()
        self._bytes += storage.nbytes()
        self.found.peak = max(self.found.peak, self._bytes)

    def _dead(self, place: int, _: Any) -> None:
        self._bytes -= self._alive.pop(place)[1]
        self._made.pop(place, None)
        self._meeting.pop(place, None)

    def close(self) -> None:
        self._alive.clear()


def _called(op: Any, args: Sequence[Any]) -> str:
    packet = op.overloadpacket
    transposed = packet is aten.convolution and args[6]
    return f"{'transposed ' if transposed else ''}{packet.__name__}"


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
