"""One forward, watched: where each parameter is read, what is added to its products, and how much lives at once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from penjing.structure._chains import START, Chain, Chains, Norm, Place, address, apart, norm
from penjing.structure._network._calling import output_tensors
from penjing.structure._products import Parameters, Product, product

aten = torch.ops.aten
_NOTHING = torch.empty(0)
_RECURRENT = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "lstm_mps"}


@dataclass(slots=True)
class Meeting:
    """A parameter's product with data: the parameter of its bias, the batch norm that follows, and which operator gave
    the tensor that the result of both is added to (a residual stream); None where there is none. `positions` are those
    of this forward. `key` is the parameter's name, and which part of it where several products read parts of it.
    """

    name: str
    number: int
    product: Product
    bias: str | None = None
    norm: Norm | None = None
    partner: Place | None = None
    positions: int = 0
    key: str = ""

    @property
    def part(self) -> int:
        return self.product.part


@dataclass(slots=True)
class Survey:
    """What one forward did: `uses` counts the operators that read a parameter, `readers` are their names, `lone` the
    biases that no other product shares, `fused` says that recurrent kernels hide their products, `peak` the bytes that
    lived at once, `norms` the batch norms in order, each with its number of values per channel.
    """

    meetings: list[Meeting] = field(default_factory=list)
    uses: dict[str, int] = field(default_factory=dict)
    readers: dict[str, dict[str, None]] = field(default_factory=dict)
    lone: set[str] = field(default_factory=set)
    fused: bool = False
    peak: int = 0
    norms: list[tuple[Norm, int]] = field(default_factory=list)

    @property
    def once(self) -> dict[str, Meeting]:
        """The products of parameters that nothing else reads, or of parts that lie apart, by key, in order."""
        fit = {name for name, met in self._only().items() if _parts(met) == len(met) and _separate(met)}
        return {m.key: m for m in self.meetings if m.name in fit}

    @property
    def repeated(self) -> dict[str, Meeting]:
        """The first products of parameters that the same matrix product reads several times, and nothing else."""
        found = {name: met for name, met in self._only().items() if len(met) > 1}
        return {
            name: met[0]
            for name, met in found.items()
            if met[0].product.settings is None and _parts(met) == 1
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
        outputs = forward()
    mode.close(output_tensors(outputs))
    return mode.found


def _parts(met: Sequence[Meeting]) -> int:
    return len({m.part for m in met})


def _separate(met: Sequence[Meeting]) -> bool:
    return len(met) == 1 or apart([m.product.weight for m in met])


class _Surveying(TorchDispatchMode):
    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.found, self._parameters = Survey(), parameters
        self._alive: dict[int, tuple[ref[Any], int]] = {}
        self._bytes = 0
        self._number, self._here = -1, START
        self._chains = Chains()
        self._begun: list[Chain] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self._note(func, args, kwargs, result)
        return result

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        results = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        self._number += 1
        found, self._here = self.found, self._here.then(func)
        found.fused |= func.overloadpacket.__name__ in _RECURRENT
        met = norm(func, args)
        if met is not None:
            found.norms.append((met.bare(), met.data.numel() // met.data.shape[1]))
        item = product(func, args, kwargs, self._parameters)
        shared = {address(t) for t in results if t.numel()} & {address(t) for t in given}
        if func._schema.is_mutable or not shared:
            self._read(func, args, given)
            names = {address(t): self._parameters.name(t) for t in given}
            self._chains.follow(func, args, kwargs, given, results, names)
            self._write(results)
        if item is not None:
            self._meet(item, results[0])
            self._here = place_of(item)

    def _read(self, func: Any, args: Sequence[Any], given: Sequence[Tensor]) -> None:
        for tensor in given:
            name = self._parameters.name(tensor)
            if name is not None:
                self.found.uses[name] = self.found.uses.get(name, 0) + 1
                self.found.readers.setdefault(name, {})[_called(func, args)] = None

    def _write(self, results: Sequence[Tensor]) -> None:
        for tensor in results:
            self._live(tensor)
            self._chains.unmade(tensor)
        if results:
            self._chains.made(self._number, self._here, results[0])

    def _meet(self, item: Product, result: Tensor) -> None:
        name = self._parameters.name(item.bias) if item.bias is not None else None
        held = replace(item, data=_NOTHING, bias=None if name is None else item.bias)
        meeting = Meeting(item.name, self._number, held, name, positions=item.positions)
        self.found.meetings.append(meeting)
        self._begun.append(self._chains.begin(self._number, item, result))

    def _live(self, tensor: Tensor) -> None:
        """Count the bytes of a tensor until its memory is given back; what is known of its place is forgotten then."""
        storage, place = tensor.untyped_storage(), address(tensor)
        if place in self._alive:
            return
        self._alive[place] = ref(storage, partial(self._dead, place)), storage.nbytes()
        self._bytes += storage.nbytes()
        self.found.peak = max(self.found.peak, self._bytes)

    def _dead(self, place: int, _: Any) -> None:
        self._bytes -= self._alive.pop(place)[1]
        self._chains.forget(place)

    def close(self, outputs: Sequence[Tensor]) -> None:
        """Settle what became of each product, now that all is read."""
        self._chains.end(outputs)
        self._alive.clear()
        for meeting, chain in zip(self.found.meetings, self._begun, strict=True):
            for step, value in chain.steps:
                setattr(meeting, step, value)
        _name(self.found.meetings)
        self.found.lone |= _lone(self.found)


def place_of(item: Product) -> Place:
    """Right after a product."""
    return Place(f"{item.name}+{item.part}" if item.part else item.name, 0, 0)


def _name(meetings: Sequence[Meeting]) -> None:
    """Keys that are the same in a network and in what is cut from it."""
    parts: dict[str, dict[int, int]] = {}
    for meeting in meetings:
        known = parts.setdefault(meeting.name, {})
        known.setdefault(meeting.part, len(known) + 1)
    for meeting in meetings:
        known = parts[meeting.name]
        one = len(known) == 1
        meeting.key = meeting.name if one else f"{meeting.name}, part {known[meeting.part]} of {len(known)}"


def _lone(found: Survey) -> set[str]:
    met: dict[str, list[Meeting]] = {}
    for meeting in found.meetings:
        if meeting.bias is not None:
            met.setdefault(meeting.bias, []).append(meeting)
    return {name for name, users in met.items() if found.uses[name] == len(users) and _own(users)}


def _own(users: Sequence[Meeting]) -> bool:
    """Whether a bias, or each part of it, goes with one weight."""
    biases = [m.product.bias for m in users]
    known = [b for b in biases if b is not None]
    if len({(m.name, m.part) for m in users}) == 1:
        return len({b.storage_offset() for b in known}) <= 1
    return len(known) == len(biases) and apart(known)


def _called(op: Any, args: Sequence[Any]) -> str:
    packet = op.overloadpacket
    transposed = packet is aten.convolution and args[6]
    return f"{'transposed ' if transposed else ''}{packet.__name__}"
