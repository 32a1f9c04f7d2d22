"""What modules are made of, found on the graph and not by class name: the parts that an adjustment can take away.

A part is a module that runs once per forward, one tensor in and one out, whose own code is one operation of a known
kind: a convolution, a fully connected layer, a batch norm, an activation, a pooling layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from penjing.core._graph import Graph, ModuleCall, OpCall, Ref
from penjing.structure._structure import Structure

aten = torch.ops.aten
CONVOLUTION, LINEAR, NORM, ACTIVATION, POOL = "convolution", "linear", "batch norm", "activation", "pooling"
ACTIVATIONS = {
    aten.relu: "relu", aten.relu_: "relu", aten.silu: "silu", aten.silu_: "silu", aten.gelu: "gelu",
    aten.hardswish: "hardswish", aten.hardswish_: "hardswish", aten.leaky_relu: "leaky_relu",
    aten.leaky_relu_: "leaky_relu", aten.elu: "elu", aten.elu_: "elu", aten.tanh: "tanh", aten.sigmoid: "sigmoid",
    aten.hardtanh: "relu6", aten.hardtanh_: "relu6", aten.mish: "mish", aten.mish_: "mish", aten.softplus: "softplus",
    aten.hardsigmoid: "hardsigmoid", aten.hardsigmoid_: "hardsigmoid", aten._prelu_kernel: "prelu",
}  # fmt: skip
POOLS = {
    aten.max_pool2d_with_indices: "max", aten.avg_pool2d: "avg", aten.max_pool1d: "max", aten.avg_pool1d: "avg",
    aten._adaptive_avg_pool2d: "adaptive avg", aten.adaptive_max_pool2d: "adaptive max", aten.mean: "adaptive avg",
}  # fmt: skip
_FREE = {
    aten.empty,
    aten.view,
    aten._unsafe_view,
    aten.t,
    aten.alias,
    aten.detach,
    aten.squeeze,
    aten.unsqueeze,
}
_SEVERAL = "it runs {} times in a forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A module and the one operation that it is: values `source` to `target`, the result of the operation itself in
    `made`; `weight` and `bias` are the names of its tensors in it, `after` the modules in it that follow its operation.
    """

    path: str
    kind: str
    name: str
    op: OpCall
    source: int
    target: int
    made: int
    weight: str | None = None
    bias: str | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts by path, why other modules with code of their own are none, and who reads a value."""

    graph: Graph
    found: Mapping[str, Part]
    refused: Mapping[str, str]
    readers: Mapping[int, Sequence[OpCall]] = field(repr=False)

    def of(self, kind: str) -> Iterator[Part]:
        return (part for part in self.found.values() if part.kind == kind)

    def shape(self, value: int) -> tuple[int, ...]:
        return self.graph.values[value].shape

    def follower(self, part: Part) -> Part | None:
        """The part that alone reads what this one gives, if there is one."""
        read = self.readers.get(part.target, ())
        if len(read) != 1 or part.target in self.graph.outputs:
            return None
        return next(
            (other for other in self.found.values() if other.source == part.target and other is not part),
            None,
        )


def parts_of(structure: Structure) -> Parts:
    """The parts of a network, in the order in which they run."""
    graph = structure.graph
    runs: dict[str, list[ModuleCall]] = {}
    for call in graph.modules:
        runs.setdefault(call.path, []).append(call)
    names = {value: name for name, value in reversed(list(graph.states.items()))}
    found: dict[str, Part] = {}
    refused: dict[str, str] = {}
    for path, calls in sorted(runs.items(), key=lambda item: item[1][0].first_op):
        own = [op for op in graph.calls[calls[0].first_op : calls[0].last_op] if op.module == path]
        main = [op for op in own if op.op.overloadpacket not in _FREE]
        if not path or not main:
            continue
        part = _part(graph, calls[0], main, names)
        if isinstance(part, str):
            refused[path] = part
        elif len(calls) > 1 and part.kind != ACTIVATION:
            refused[path] = _SEVERAL.format(len(calls))
        else:
            found[path] = part
    return Parts(graph, found, refused, _readers(graph))


def _readers(graph: Graph) -> dict[int, list[OpCall]]:
    found: dict[int, list[OpCall]] = {}
    for call in graph.calls:
        for value in dict.fromkeys(call.inputs):
            found.setdefault(value, []).append(call)
    return found


def _part(graph: Graph, call: ModuleCall, main: Sequence[OpCall], names: Mapping[int, str]) -> Part | str:
    """The part, or why the module is none."""
    if len(main) > 1:
        return f"its code does {len(main)} operations, not one"
    op, packet = main[0], main[0].op.overloadpacket
    known = _KNOWN.get(packet)
    if known is None:
        return f"its operation is {packet.__name__}, which no adjustment knows"
    if not call.plain:
        return "it takes or gives several tensors"
    kind, name, weight, bias = known
    states = {"weight": _state(op, weight, names, graph), "bias": _state(op, bias, names, graph)}
    inside = {role: _inside(call.path, state) for role, state in states.items() if state}
    if None in inside.values() or (weight is not None and "weight" not in inside):
        return "its weights are not its own: its code reads them elsewhere, or computes them"
    if packet is aten.convolution and op.args[6]:
        return "it is a transposed convolution"
    if kind == NORM and (op.args[5] or len(op.inputs) < 5):
        return "it has no running statistics, or no scale and shift"
    last = next((c for c in graph.modules if c.path == call.path), call)
    made = op.outputs[0]
    after = tuple(
        c.path[len(call.path) + 1 :]
        for c in graph.modules
        if c.path.startswith(f"{call.path}.") and c.path.count(".") == call.path.count(".") + 1
    )
    source = last.inputs[0]
    return Part(
        path=call.path, kind=kind, name=name, op=op, source=source, target=last.outputs[0], made=made, after=after,
        weight=inside.get("weight"), bias=inside.get("bias"),
    )  # fmt: skip


def _state(op: OpCall, position: int | None, names: Mapping[int, str], graph: Graph) -> str | None:
    """The name of the parameter that an operation reads at a position, itself or turned by 90 degrees."""
    if position is None or position >= len(op.args) or not isinstance(op.args[position], Ref):
        return None
    value = op.args[position].value
    if value in names:
        return names[value]
    turned = next((c for c in graph.calls if value in c.outputs and c.op.overloadpacket is aten.t), None)
    return names.get(turned.inputs[0], "?") if turned is not None else "?"


def _inside(path: str, name: str) -> str | None:
    """A tensor's name in the module that holds it, None where another does."""
    inner = name.removeprefix(f"{path}.")
    return inner if inner != name and "." not in inner else None


_KNOWN = {
    aten.convolution: (CONVOLUTION, "convolution", 1, 2),
    aten.addmm: (LINEAR, "linear", 2, 0),
    aten.mm: (LINEAR, "linear", 1, None),
    aten.native_batch_norm: (NORM, "batch norm", 1, 2),
    aten._native_batch_norm_legit_no_training: (NORM, "batch norm", 1, 2),
    **{packet: (ACTIVATION, name, None, None) for packet, name in ACTIVATIONS.items()},
    **{packet: (POOL, name, None, None) for packet, name in POOLS.items()},
}
