"""The traced network as data: values and op calls in single-assignment, topological order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a value inside an op call's arguments."""

    value: int


class Value(NamedTuple):
    """One tensor: its shape and dtype at trace time; holds no data."""

    id: int
    shape: tuple[int, ...]
    dtype: str


class OpCall(NamedTuple):
    """One operator call. `args` and `kwargs` hold `Ref`s where tensors stood.

    `function` is the torch function the user's code called; `sizes` are the integers it passed, each with its
    provenance expression (penjing.structure), in argument order.
    """

    op: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str
    function: str
    sizes: tuple[Any, ...] = ()


class ModuleCall(NamedTuple):
    """One call of a module: the values that went in and came out, and the op calls it spans. `form` is what it
    returned: t a tensor, n None, in brackets a tuple of these, ? anything else.
    """

    path: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    first_op: int
    last_op: int
    plain: bool  # one tensor in, one tensor out
    form: str = "t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Single assignment, topological, without tensor data.

    `states` names the parameters and buffers; tied tensors are one value with several names.
    `constants` are values the network reads that are neither input, parameter nor buffer. `ending` names the module
    whose code reads values of computed tensors, where the graph ends before the forward does.
    """

    calls: tuple[OpCall, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    states: Mapping[str, int]
    constants: tuple[int, ...] = ()
    modules: tuple[ModuleCall, ...] = ()
    names: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    ending: str | None = None
