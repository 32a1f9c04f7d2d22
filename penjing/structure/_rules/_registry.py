"""One registry of op rules, and what a rule sees of the call it speaks about.

A rule says what each output dim is, what must be unified, what is frozen and why, and whether a removed dim is
contracted (`reduce`: masking equals removing) or has its statistics retaken (`renormalize`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from penjing.core import InternalError
from penjing.core._graph import Graph, OpCall, Ref
from penjing.structure._labels._atoms import FIXED, Atoms, Dim
from penjing.structure._network._provenance import Attr, Const, Expr, leaves

Labels = list[Dim]
Rule = Callable[["Site"], list[Labels]]
RULES: dict[Any, Rule] = {}


def rule(*packets: Any) -> Callable[[Rule], Rule]:
    """Register a rule for op packets such as `aten.convolution`; a duplicate raises.

    Ops that another library brings, and that exist once it is imported, go by their name: "torchvision::nms".
    """

    def register(function: Rule) -> Rule:
        for packet in packets:
            if packet in RULES:
                raise InternalError(f"two rules for {packet}")
            RULES[packet] = function
        return function

    return register


@dataclass(frozen=True, slots=True)
class Requirement:
    """The code computes this dim's size by `expr`: after pruning both must agree, or the dim is frozen.

    `partners` are dims of the same size that it may be tied with, index by index, before it is frozen. A dim without
    labels keeps its `size`: attributes that size it must stay.
    """

    expr: Expr
    dim: Dim
    cause: str
    partners: tuple[Dim, ...] = ()
    size: int = 0


@dataclass(frozen=True, slots=True)
class Spanned:
    """Call `call` sums or averages over dim `dim` of its tensor input number `position`."""

    call: int
    position: int
    dim: int
    renormalized: bool


@dataclass(slots=True)
class Facts:
    """What the rules found over one traced graph; several graphs of a network share their atoms."""

    atoms: Atoms = field(default_factory=Atoms)
    shapes: tuple[tuple[int, ...], ...] = ()
    labels: dict[int, Labels] = field(default_factory=dict)
    makers: dict[int, int] = field(default_factory=dict)  # value -> position of the call that last gave it
    requirements: list[Requirement] = field(default_factory=list)
    spanned: list[Spanned] = field(default_factory=list)
    renormalized: list[np.ndarray] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    kinds: list[tuple[str, Dim]] = field(default_factory=list)
    data: set[int] = field(default_factory=set)  # values that depend on the network's inputs
    used: set[int] = field(
        default_factory=set
    )  # values that outputs, or values that code reads, are computed from
    places: dict[int, Dim] = field(default_factory=dict)  # integers that say places in a dim
    weights: set[int] = field(default_factory=set)  # parameters and buffers, laid out anew or not
    cuts: list[tuple[Dim, int, int]] = field(
        default_factory=list
    )  # dims of which slices keep first .. last - 1
    data_cuts: list[tuple[Dim, int, int]] = field(default_factory=list)  # of data, where no size says
    flattened: list[Dim] = field(default_factory=list)  # of data: channels times places, and such


class Site:
    """One op call as its rule sees it."""

    __slots__ = ("call", "facts", "graph", "index")

    def __init__(self, facts: Facts, graph: Graph, index: int) -> None:
        self.facts, self.graph, self.index = facts, graph, index
        self.call: OpCall = graph.calls[index]

    @property
    def atoms(self) -> Atoms:
        return self.facts.atoms

    def arg(self, position: int, default: Any = None) -> Any:
        """Positional argument, or the keyword argument of the same schema position."""
        if position < len(self.call.args):
            return self.call.args[position]
        schema = self.call.op._schema.arguments
        return self.call.kwargs.get(schema[position].name, default) if position < len(schema) else default

    def maker(self, value: int) -> OpCall | None:
        """The call that gave a value; None for inputs, parameters and constants."""
        position = self.facts.makers.get(value)
        return None if position is None else self.graph.calls[position]

    def labels(self, ref: Any) -> Labels:
        return self.facts.labels[ref.value]

    def shape(self, ref: Any) -> tuple[int, ...]:
        return self.graph.values[ref.value].shape

    def output_shape(self, position: int = 0) -> tuple[int, ...]:
        return self.graph.values[self.call.outputs[position]].shape

    def tensors(self) -> list[Ref]:
        return [Ref(value) for value in self.call.inputs]

    def because(self, why: str) -> str:
        where = self.call.module or "the network"
        return f"{where}: {self.call.op.overloadpacket.__name__} {why}"

    def freeze(self, dim: Dim, why: str) -> None:
        if dim:
            self.atoms.freeze(dim, self.because(why))

    def unify(self, a: Dim, b: Dim, why: str = "joins dims that factorise differently") -> Dim:
        met = self.atoms.met(a, b)
        if met is not None:
            return met
        if not a or not b:
            why = "meets a dim of fixed size"
        return self.atoms.unify(a, b, self.because(why))

    def require(
        self,
        expr: Expr | None,
        dim: Dim,
        why: str = "is called with this size",
        partners: tuple[Dim, ...] = (),
    ) -> None:
        if isinstance(expr, Const):
            self.freeze(dim, f"{why}, a literal in the code")
        elif expr is not None and dim:
            self.facts.requirements.append(Requirement(expr, dim, self.because(why), partners))

    def hold(self, expr: Expr | None, size: int) -> None:
        """The code computes the size of a dim without labels: attributes it reads there are not free to change."""
        if expr is not None and any(isinstance(leaf, Attr) for leaf in leaves(expr)):
            why = self.because("is called with this attribute for a dim of fixed size")
            self.facts.requirements.append(Requirement(expr, FIXED, why, size=size))

    def reduce(self, ref: Any, dim: int) -> None:
        self._span(ref, dim, renormalized=False)

    def renormalize(self, ref: Any, dim: int) -> None:
        self._span(ref, dim, renormalized=True)

    def _span(self, ref: Any, dim: int, renormalized: bool) -> None:
        labels = self.labels(ref)[dim]
        if labels:
            self.facts.spanned.append(
                Spanned(self.index, self.call.inputs.index(ref.value), dim, renormalized)
            )
            if renormalized:
                self.facts.renormalized.extend(labels)

    def size_expr(self, value: int) -> Expr:
        """The provenance of an integer this op was called with: a traced one of the same value, else a literal."""
        for known, expr in self.call.sizes:
            if known == value and not isinstance(expr, Const):
                return expr
        return Const(value)

    def size_exprs(self, values: Sequence[int]) -> list[Expr]:
        """The same for integers given in a row, by their place there: two of them may have one value."""
        given, n = self.call.sizes, len(values)
        for start in range(len(given) - n + 1):
            if all(v == w for (v, _), w in zip(given[start:], values, strict=False)):
                return [expr for _, expr in given[start : start + n]]
        return [self.size_expr(value) for value in values]

    def keep(self, expr: Expr, value: int, why: str) -> None:
        """An integer that is no size, such as an amount of padding, must stay what it is."""
        if not isinstance(expr, Const):
            self.facts.requirements.append(Requirement(expr, FIXED, self.because(why), size=value))


def fixed(shape: Sequence[int]) -> Labels:
    return [FIXED] * len(shape)


@functools.cache
def is_pointwise(op: Any) -> bool:
    """Whether torch tags the op, or the op it is the in-place form of, as elementwise."""
    if torch.Tag.pointwise in op.tags:
        return True
    name = op.overloadpacket.__name__
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") else None
    return packet is not None and any(
        torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads()
    )
