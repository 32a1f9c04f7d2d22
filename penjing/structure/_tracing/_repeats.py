"""What a torch function did with arguments of some shapes it does again: its ops are written down, and nothing runs.

Each op costs a passage through torch's dispatcher, and a linear layer makes four, a fused attention twenty. Only
functions whose ops are decided by the shapes, layouts and dtypes of what they are given, and by its plain arguments,
are taken; each is run at its first call in a trace, by torch itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from penjing.core._graph import OpCall, Ref, Value
from penjing.structure._network._provenance import Const, Expr, TracedInt
from penjing.structure._tracing._shapes import SELF, Spec, spec
from penjing.structure._tracing._traits import traits_of

Sizes = tuple[tuple[int, Expr], ...]
_Layout = tuple[
    Sequence[int], Sequence[int], torch.dtype, bool
]  # shape, strides, kind, and whether it has no data

_METHODS = (
    "add", "add_", "sub", "mul", "mul_", "div", "matmul", "softmax", "mean", "clone", "relu", "relu_", "sigmoid",
    "tanh", "__radd__", "__rsub__", "__rmul__", "__pow__", "__matmul__", "pow", "rsqrt", "neg", "sum", "exp", "sqrt",
    "bmm", "contiguous", "view", "reshape", "permute", "transpose", "flatten", "unflatten", "unsqueeze", "squeeze",
    "expand", "unbind", "chunk", "split", "__getitem__",
)  # fmt: skip
_FUNCTIONS = (
    "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "add", "sub", "mul", "div", "cat", "mean",
    "relu", "relu_", "sigmoid", "tanh", "matmul", "bmm", "softmax", "rsqrt", "pow", "einsum", "sum", "exp", "sqrt",
    "flatten", "permute", "transpose", "unsqueeze", "squeeze", "chunk", "split",
)  # fmt: skip
_OF_NN = (
    "linear", "batch_norm", "layer_norm", "group_norm", "rms_norm", "relu", "relu6", "gelu", "silu", "hardtanh",
    "hardswish", "hardsigmoid", "leaky_relu", "elu", "mish", "softplus", "sigmoid", "tanh", "softmax", "dropout",
    "adaptive_avg_pool2d", "avg_pool2d", "_max_pool2d", "pad", "scaled_dot_product_attention",
)  # fmt: skip
_PLACES = ((torch.Tensor, _METHODS), (torch, _FUNCTIONS), (F, _OF_NN))
REPEATED: frozenset[Any] = frozenset(getattr(place, name) for place, names in _PLACES for name in names)
_ALIKE = frozenset({  # one op each, and a batch norm's memory; the ops' arguments tell nothing of shapes
    torch.conv1d, torch.conv2d, torch.conv3d, F.batch_norm, F.layer_norm, F.relu, torch.relu, F.relu6, F.gelu, F.silu,
    F.hardtanh, F.hardswish, F.hardsigmoid, F.leaky_relu, F.sigmoid, torch.sigmoid, torch.Tensor.sigmoid, F.elu,
    torch.Tensor.add, torch.Tensor.add_, torch.add, torch.Tensor.mul, torch.mul, F.dropout, F.mish, torch.Tensor.mul_,
    F.adaptive_avg_pool2d, torch.Tensor.mean,
})  # fmt: skip
_PADDED = frozenset({torch.conv1d, torch.conv2d, torch.conv3d})  # by name ("same"), as kernels need it
_ATOMIC = frozenset({
    float, bool, str, type(None), type(Ellipsis), torch.dtype, torch.device, torch.memory_format, torch.layout,
})  # fmt: skip
_TENSORS = frozenset({torch.Tensor, nn.Parameter})
_CONSTANTS = {n: Const(n) for n in range(-8, 65)}
_META = torch.device("meta")


class Book(Protocol):
    """Where a trace writes down what it sees; `layouts` numbers the layouts of tensors met here, by their `id`."""

    ids: dict[int, int]
    values: list[Value]
    calls: list[OpCall]
    constants: dict[int, torch.Tensor]
    alive: list[torch.Tensor]
    layouts: dict[int, int]
    module: str
    open: bool


@dataclass(slots=True)
class Asked:
    """One call of a torch function: its arguments walked once, and where the trace stood before it."""

    func: Any
    plain: list[Any]  # the arguments but for tensors
    layouts: list[int]
    tensors: dict[int, torch.Tensor]
    sizes: list[tuple[int, Expr]]
    given: list[int]  # the tensors' values
    calls: int
    values: int
    compared: int  # how many comparisons of traced integers were told of
    key: Any = None


@dataclass(frozen=True, slots=True)
class _Slot:
    """Stands for a tensor: those given, in order, then those made."""

    number: int


class _Step(NamedTuple):
    """An op call over slots."""

    op: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    places: tuple[tuple[int, int], ...] | None  # which argument is which slot; None where slots lie in lists
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class _Known(NamedTuple):
    """What a function does: its steps, what these make, which of the tensors given were written to, and the slots it
    returns, each with its layout: zero for a tensor it was given. `views` have to be made by the function itself.
    """

    steps: tuple[_Step, ...]
    made: tuple[tuple[tuple[int, ...], str], ...]
    written: tuple[tuple[int, int], ...]
    returned: tuple[tuple[int, int], ...]
    views: bool


class Repeats:
    """The torch functions called in one trace, by what they were given."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._known: dict[Any, _Known | None] = {}
        self._alike: dict[Any, _Known] = {}
        self._numbers: dict[_Layout, int] = {}
        self._layouts: list[_Layout] = [((), (), torch.float32, True)]  # their numbers start at one
        self._kinds: list[Any] = [None]  # what they are but for sizes

    def ask(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Asked | None:
        """The call's signature; None where something else may decide what it does."""
        book = self._book
        if not book.open or not _is_usual():
            return None
        asked = Asked(func, [func], [], {}, [], [], len(book.calls), len(book.values), TracedInt.told)
        if not self._sign(args, asked):
            return None
        if kwargs:
            asked.plain.append(tuple(kwargs))
            if "out" in kwargs or not self._sign(kwargs.values(), asked):
                return None
        asked.given += map(book.ids.__getitem__, asked.tensors)
        asked.key = (*asked.plain, *asked.layouts)
        return asked

    def _sign(self, items: Iterable[Any], asked: Asked) -> bool:
        plain, layouts = asked.plain, self._book.layouts
        for item in items:
            kind = type(item)
            if kind in _TENSORS:
                layout = layouts.get(id(item)) or self._number(item)
                if not layout:
                    return False
                again = id(item) in asked.tensors
                plain.append(list(asked.tensors).index(id(item)) if again else _Slot)
                asked.tensors[id(item)] = item
                asked.layouts.append(layout)
            elif kind in _ATOMIC:
                plain += (kind, item)
            elif kind is int:
                plain += (kind, item)
                asked.sizes.append((item, _CONSTANTS.get(item) or Const(item)))
            elif kind is TracedInt:
                number = int(item)
                plain += (kind, number)
                asked.sizes.append((number, item.expr))
            elif kind is tuple or kind is list or kind is torch.Size:
                plain += (kind, len(item))
                if not self._sign(item, asked):
                    return False
            elif kind is slice:
                plain.append(kind)
                if not self._sign((item.start, item.stop, item.step), asked):
                    return False
            else:
                return False
        return True

    def _number(self, tensor: torch.Tensor) -> int:
        """A number for the layout of a dense tensor that the trace has seen; zero for any other, and where a sign
        or a conjugate is still to be taken: ops do so before they begin.
        """
        if id(tensor) not in self._book.ids or tensor.layout is not torch.strided:
            return 0
        if tensor.is_neg() or tensor.is_conj():
            return 0
        found = self._numbered(tensor.shape, tensor.stride(), tensor.dtype, tensor.is_meta)
        self._book.layouts[id(tensor)] = found
        return found

    def _numbered(self, *layout: *_Layout) -> int:
        found = self._numbers.get(layout)
        if found is None:
            found = self._numbers[layout] = len(self._layouts)
            self._layouts.append(layout)
            self._kinds.append((len(layout[0]), *layout[2:]))
        return found

    def again(self, asked: Asked, sizes: Sizes, args: Any, kwargs: Any) -> Any:
        """What the function returns, with its calls written down; None where this is the first such call."""
        known = self._known.get(asked.key)
        if known is None:
            known = self._like(asked) if _has_kind(asked) else None
            if known is None:
                return None
        book = self._book
        first = len(book.values)
        numbers = [*asked.given, *range(first, first + len(known.made))]
        book.values += [Value(n, s, d) for n, (s, d) in enumerate(known.made, first)]
        if known.steps:
            self._write(known.steps, numbers, getattr(asked.func, "__name__", "?"), sizes)
        if known.written:
            tensors = list(asked.tensors)
            for given, slot in known.written:
                book.ids[tensors[given]] = numbers[slot]
        if known.views:
            with torch._C._DisableTorchDispatch():
                result = asked.func(*args, **kwargs)
            made = (result,) if isinstance(result, torch.Tensor) else result
        else:
            number, layout = known.returned[0]
            if not layout:
                return list(asked.tensors.values())[number]
            shape, strides, dtype, _ = self._layouts[layout]
            with torch._C._DisableTorchDispatch():
                result = torch.empty_strided(shape, strides, dtype=dtype, device=_META)
            made = (result,)
        for tensor, (number, layout) in zip(made, known.returned, strict=True):
            book.ids[id(tensor)], book.layouts[id(tensor)] = numbers[number], layout
        book.alive += made
        return result

    def _write(self, steps: Sequence[_Step], numbers: Sequence[int], function: str, sizes: Sizes) -> None:
        refs, calls, module = list(map(Ref, numbers)), self._book.calls, self._book.module
        for step in steps:
            calls.append(
                OpCall(
                    step.op,
                    _filled(step, refs),
                    step.kwargs,
                    tuple([numbers[i] for i in step.inputs]),
                    tuple([numbers[i] for i in step.outputs]),
                    module,
                    function,
                    sizes,
                )
            )

    def learn(self, asked: Asked, result: Any) -> None:
        """Keep what the function has just done, if it is sure to do that again."""
        if asked.key not in self._known:
            known = self._known[asked.key] = self._done(asked, result)
            if known is not None and _has_kind(asked):
                self._alike[self._kind(asked)] = known

    def _kind(self, asked: Asked) -> Any:
        """What is asked, less the sizes of tensors."""
        return (*asked.plain, *map(self._kinds.__getitem__, asked.layouts))

    def _like(self, asked: Asked) -> _Known | None:
        """What was done with tensors of other sizes, if their ops tell what they make of these."""
        like = self._alike.get(self._kind(asked))
        if like is None:
            return None
        tensors, made = list(asked.tensors.values()), list(like.made)
        layouts: dict[int, Spec] = {}
        for step in like.steps:
            specs = _specs(step, tensors) if step.inputs else ()
            if specs is None or len(specs) not in (0, len(step.outputs)):
                return None
            for slot, found in zip(step.outputs, specs, strict=False):
                made[slot - len(tensors)] = tuple(found[0]), made[slot - len(tensors)][1]
                layouts[slot] = found
        returned = tuple((n, had and self._numbered(*layouts[n], True)) for n, had in like.returned)
        known = self._known[asked.key] = like._replace(made=tuple(made), returned=returned)
        return known

    def _done(self, asked: Asked, result: Any) -> _Known | None:
        book = self._book
        if asked.compared != TracedInt.told:
            return None  # these comparisons are told of at each call
        calls, values = book.calls[asked.calls :], range(asked.values, len(book.values))
        slots = dict(zip((*asked.given, *values), range(len(asked.given) + len(values)), strict=True))
        if not book.open or not all(_is_sure(c, slots) for c in calls):
            return None
        if book.constants and any(v in book.constants for v in values):
            return None
        written = [
            (i, slots[book.ids[key]])
            for i, (key, before) in enumerate(zip(asked.tensors, asked.given, strict=True))
            if book.ids[key] != before
        ]
        if any(not asked.tensors[list(asked.tensors)[i]].is_meta for i, _ in written):
            return None  # real data changes only where the op runs
        views = False
        if id(result) in asked.tensors:
            returned = [(list(asked.tensors).index(id(result)), 0)]
        else:
            made = (result,) if isinstance(result, torch.Tensor) else result
            if type(made) not in (tuple, list) or not all(self._is_own(t, asked) for t in made):
                return None
            returned = [(slots[book.ids[id(t)]], self._number(t)) for t in made]
            shared = _shared(calls, slots, len(asked.given))
            views = all(n in shared for n, _ in returned) and len(calls) == 1
            if not views and (made is result or returned[0][0] in shared):
                return None
        return _Known(
            tuple(_step(call, slots) for call in calls),
            tuple((book.values[v].shape, book.values[v].dtype) for v in values),
            tuple(written),
            tuple(returned),
            views,
        )

    def _is_own(self, tensor: Any, asked: Asked) -> bool:
        """Whether the call has made this stand-in."""
        made = type(tensor) is torch.Tensor and tensor.is_meta
        return made and self._book.ids.get(id(tensor), -1) >= asked.values


def _is_usual() -> bool:
    """Whether nothing around the call decides which ops it makes: no gradients or inference mode, no autocast, no
    mode of the user's.
    """
    return not (
        torch.is_grad_enabled()
        or torch.is_inference_mode_enabled()
        or torch._C._is_any_autocast_enabled()
        or torch._C._len_torch_dispatch_stack() != 1
    )


def _has_kind(asked: Asked) -> bool:
    """Whether the same ops come of tensors of other sizes."""
    return asked.func in _ALIKE and not (asked.func in _PADDED and str in asked.plain)


def _is_sure(call: OpCall, slots: Mapping[int, int]) -> bool:
    traits = traits_of(call.op)
    return not (traits.random or traits.needs_values or traits.masked) and all(
        v in slots for v in call.inputs
    )


def _shared(calls: Sequence[OpCall], slots: Mapping[int, int], given: int) -> set[int]:
    """The tensors given, and all that may lie in their memory."""
    found = set(range(given))
    for call in calls:
        if not traits_of(call.op).fresh and any(slots[v] in found for v in call.inputs):
            found.update(slots[v] for v in call.outputs)
    return found


def _specs(step: _Step, tensors: Sequence[torch.Tensor]) -> Sequence[Spec] | None:
    """What an op of tensors that were given makes; None where only its kernel can say."""
    quick = traits_of(step.op).quick
    if quick is None or step.kwargs or max(step.inputs) >= len(tensors):
        return None
    found = quick(_filled(step, tensors))
    return (spec(tensors[step.inputs[0]]),) if found is SELF else None if found is None else found[1]


def _step(call: OpCall, slots: Mapping[int, int]) -> _Step:
    args = _slotted(call.args, slots)
    places = [(i, a.number) for i, a in enumerate(args) if type(a) is _Slot]
    return _Step(
        call.op,
        args,
        call.kwargs,
        tuple(places) if len(places) == len(call.inputs) else None,
        tuple([slots[v] for v in call.inputs]),
        tuple([slots[v] for v in call.outputs]),
    )


def _slotted(items: tuple[Any, ...], slots: Mapping[int, int]) -> tuple[Any, ...]:
    return tuple(
        [
            _Slot(slots[i.value]) if type(i) is Ref else _slotted(i, slots) if type(i) is tuple else i
            for i in items
        ]
    )


def _filled(step: _Step, held: Sequence[Any]) -> tuple[Any, ...]:
    if step.places is None:
        return _fill(step.args, held)
    args = list(step.args)
    for place, slot in step.places:
        args[place] = held[slot]
    return tuple(args)


def _fill(items: tuple[Any, ...], held: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(
        [held[i.number] if type(i) is _Slot else _fill(i, held) if type(i) is tuple else i for i in items]
    )
