"""What becomes of a product's result: the bias and the batch norm it goes through, the stream it is added to.

A result is followed as long as one operator, and no other, reads it whole, and nothing changes it in place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penjing.structure._products import Product

aten = torch.ops.aten
_NORMS = (
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten._native_batch_norm_legit,
)
_NOTHING = torch.empty(0)
_ADDS = (aten.add, aten.add_)
Step = tuple[str, Any]


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

    def bare(self) -> "Norm":
        return self._replace(data=_NOTHING)


def norm(op: Any, args: Sequence[Any]) -> Norm | None:
    """The call as a batch norm in eval mode; None for any other call."""
    if op.overloadpacket not in _NORMS or args[3] is None or args[5]:
        return None
    data, weight, bias, mean, var = args[:5]
    return Norm(data, weight, bias, mean, var, args[7])


class Layout(NamedTuple):
    """How a tensor lies in its memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @staticmethod
    def of(tensor: Tensor) -> "Layout":
        return Layout(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dense(self) -> bool:
        """Whether it holds every element of a range of memory once."""
        size = 1
        for stride, count in sorted(zip(self.stride, self.shape, strict=True)):
            if count != 1 and stride != size:
                return False
            size *= count
        return True

    @property
    def plain(self) -> bool:
        """Whether its elements follow one another."""
        sizes = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return all(n == 1 or s == size for n, s, size in zip(self.shape, self.stride, sizes, strict=True))

    def like(self, other: "Layout") -> bool:
        return (self.shape, self.stride) == (other.shape, other.stride)

    def covers(self, other: "Layout") -> bool:
        """Whether both hold the same elements of the same memory."""
        return self.offset == other.offset and self.size == other.size and self.dense and other.dense


def apart(tensors: Sequence[Tensor]) -> bool:
    """Whether parts of one memory share nothing, as far as ranges tell."""
    layouts = sorted((Layout.of(t) for t in tensors), key=lambda one: one.offset)
    return all(one.dense for one in layouts) and all(
        a.offset + a.size <= b.offset for a, b in pairwise(layouts)
    )


@dataclass(slots=True)
class Chain:
    """A product's result on its way: `steps` so far, `closed` where it is not followed on."""

    number: int
    layout: Layout
    outputs: tuple[int, int]  # how many, and how far they lie apart
    rows: bool
    whole: bool
    biased: bool
    steps: list[Step] = field(default_factory=list)
    closed: bool = False


@dataclass(slots=True)
class _Held:
    """Memory that holds a product's result after so many steps; `read` once an operator has taken it."""

    chain: Chain
    steps: int
    layout: Layout
    read: bool = False

    def end(self) -> None:
        """It is not followed from here, and neither is what was made of it."""
        del self.chain.steps[self.steps :]
        self.chain.closed = True


class _Made(NamedTuple):
    number: int
    place: Place
    layout: Layout


class Chains:
    """Follows what products give through one forward; memory is known by its address."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._made: dict[int, _Made] = {}
        self._latest: dict[Place, int] = {}

    def begin(self, number: int, item: Product, result: Tensor) -> Chain:
        """`result` is what product number `number` gave."""
        layout, matrix = Layout.of(result), item.settings is None
        axis = (result.dim() - (2 if item.left else 1)) if matrix else 1
        outputs = layout.shape[axis], layout.stride[axis]
        rows = matrix and not item.left and result.dim() == 2
        whole = result.dim() == 2 or not matrix
        chain = Chain(number, layout, outputs, rows, whole, item.bias is not None)
        if layout.size:
            self._held[address(result)] = _Held(chain, 0, layout)
        return chain

    def follow(
        self,
        op: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Sequence[Tensor],
        results: Sequence[Tensor],
        names: Mapping[int, str | None],
    ) -> None:
        """An operator that makes or changes memory; `names` are those of the parameters it reads, by address."""
        addresses = [address(t) for t in given]
        met = [(a, t) for a, t in zip(addresses, given, strict=True) if a in self._held]
        changed = {address(t) for t in results} & set(addresses)
        on: dict[int, _Held] = {}
        for place, tensor in met:
            held = self._held[place]
            alone = not held.read and not held.chain.closed and addresses.count(place) == 1
            step = self._step(op, args, kwargs, given, tensor, held, names) if alone else None
            held.read = True
            if step is None:
                held.end()
                continue
            held.chain.steps.append(step)
            if step[0] != "partner" and Layout.of(tensor).like(Layout.of(results[0])):
                on[address(results[0])] = _Held(held.chain, held.steps + 1, Layout.of(results[0]))
        for place in changed:
            self._held.pop(place, None)
        self._held |= on

    def end(self, outputs: Sequence[Tensor]) -> None:
        """What the forward returns is read by whoever called."""
        for tensor in outputs:
            held = self._held.get(address(tensor))
            if held is not None:
                held.end()

    def _step(
        self,
        op: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        given: Sequence[Tensor],
        own: Tensor,
        held: _Held,
        names: Mapping[int, str | None],
    ) -> Step | None:
        packet, chain, layout = op.overloadpacket, held.chain, Layout.of(own)
        if not chain.whole or not layout.covers(held.layout):
            return None
        if packet in _NORMS and args[0] is own:
            found = norm(op, args)
            fits = (layout.shape[1], layout.stride[1]) == chain.outputs
            return ("norm", found.bare()) if found is not None and fits and not _has(chain, "norm") else None
        if packet not in _ADDS or len(given) != 2 or kwargs.get("alpha", 1) != 1:
            return None
        other = given[1] if given[0] is own else given[0]
        name = names.get(address(other))
        if name is not None:
            fits = chain.rows and other.dim() == 1 and (layout.shape[-1], layout.stride[-1]) == chain.outputs
            free = not chain.biased and not chain.steps and len(other) == chain.outputs[0]
            return ("bias", name) if fits and free else None
        return self._partner(layout, other, chain)

    def _partner(self, own: Layout, other: Tensor, chain: Chain) -> Step | None:
        """The stream, where element by element it lies as the product's result does."""
        made, stream = self._made.get(address(other)), Layout.of(other)
        if made is None or made.number >= chain.number or self._latest[made.place] != made.number:
            return None
        if not own.like(stream) or not stream.covers(made.layout):
            return None
        fits = made.layout.plain and chain.layout.plain if chain.rows else made.layout.like(chain.layout)
        return ("partner", made.place) if fits else None

    def made(self, number: int, place: Place, result: Tensor) -> None:
        """Remember which operator gave this memory what it holds."""
        self._latest[place] = number
        if result.numel():
            self._made[address(result)] = _Made(number, place, Layout.of(result))

    def unmade(self, result: Tensor) -> None:
        self._made.pop(address(result), None)

    def forget(self, place: int) -> None:
        self._made.pop(place, None)
        self._held.pop(place, None)


def _has(chain: Chain, kind: str) -> bool:
    return any(step[0] == kind for step in chain.steps)


def address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
