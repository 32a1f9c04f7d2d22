"""Run the network's own eager forward once on meta tensors and write down every operator call.

Python control flow just runs: no `torch.export`, no fx, no autograd graph. Parameters and float buffers are
swapped for meta tensors, integer tensors stay real (code reads their values), and everything is put back.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from penjing.core import TraceError
from penjing.core._graph import Graph, ModuleCall, OpCall, Ref, Value
from penjing.structure._network._attention import attention_freed
from penjing.structure._network._attributes import AttributeWatch
from penjing.structure._network._caches import caches_dropped
from penjing.structure._network._calling import (
    ExampleInputs,
    call_with,
    check_example,
    form_of,
    is_additive_mask,
    output_tensors,
)
from penjing.structure._network._collector import collector_paused
from penjing.structure._network._containers import map_tensors, tensors_of
from penjing.structure._network._provenance import Arith, Expr
from penjing.structure._network._walk import Named, every_path, first_paths
from penjing.structure._tracing._aliases import Aliases, alias
from penjing.structure._tracing._choices import by_places, everything, has_mask
from penjing.structure._tracing._comparisons import Comparisons
from penjing.structure._tracing._endings import Ending, ValueRead, held
from penjing.structure._tracing._fast_paths import fast_paths_off
from penjing.structure._tracing._idle import without_idle
from penjing.structure._tracing._leftovers import no_leftovers
from penjing.structure._tracing._mixing import Mixing, result_tensors
from penjing.structure._tracing._shadows import Shadows
from penjing.structure._tracing._stand_ins import on_meta
from penjing.structure._tracing._tolerance import autocast_by_cpu, distributions_unchecked
from penjing.structure._tracing._traits import Traits, traits_of
from penjing.structure._tracing._user_calls import UserCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A graph, and the data of the constants it reads (real tensors that are no parameter, buffer or input).

    `chosen` holds results that only data could give, with everything chosen (see `_choices`).
    `compared` are the comparisons of sizes that the code made, each with its answer and the module that asked.
    """

    graph: Graph
    constants: Mapping[int, torch.Tensor]
    chosen: Mapping[int, torch.Tensor]
    compared: Mapping[Arith, tuple[bool, str]]


def trace_forward(
    model: nn.Module, example: ExampleInputs, *, training: bool = False, provenance: bool = True
) -> Trace:
    """The op calls of one forward. Leaves the model exactly as it was. Without `provenance` the code runs on plain
    integers: enough to see what it does, not to learn where its sizes come from.

    Raises `TraceError` when the forward fails or reads a value that only real data could give.
    """
    check_example(example)
    recorder = _Recorder(provenance=provenance)
    try:
        return _traced(model, example, training, recorder)
    except TraceError as error:
        if not recorder.chose or not isinstance(error.__cause__, IndexError):
            raise
    return _traced(model, example, training, _Recorder(provenance=provenance, spare_last=True))


def _traced(model: nn.Module, example: ExampleInputs, training: bool, recorder: "_Recorder") -> Trace:
    every = every_path(model)
    named = first_paths(every)
    with ExitStack() as stack:
        stack.enter_context(collector_paused())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        states, originals = stack.enter_context(on_meta(every, training))
        stack.enter_context(caches_dropped(module for _, module in named))
        stack.enter_context(fast_paths_off())
        stack.enter_context(autocast_by_cpu())
        stack.enter_context(distributions_unchecked())
        stack.enter_context(no_leftovers(module for _, module in named))
        stack.enter_context(attention_freed(named))
        recorder.begin(states, originals, example)
        stack.enter_context(AttributeWatch(named, traced=recorder.provenance))
        stack.enter_context(_module_calls(named, recorder))
        stack.enter_context(recorder)
        stack.enter_context(UserCalls(recorder))
        comparisons = stack.enter_context(Comparisons(lambda: recorder.module))
        try:
            output = call_with(model, recorder.example)
        except Exception as error:
            where = recorder.module or type(model).__name__
            raise TraceError(
                f"the forward failed in {where!r} while tracing: {type(error).__name__}: {error}. Check that "
                "model(example_inputs) runs by itself; pass a tuple for several arguments, a dict for keywords"
            ) from error
    return recorder.finish(output, comparisons.heard)


@contextmanager
def _module_calls(named: Named, recorder: "_Recorder") -> Iterator[None]:
    for path, module in named:
        module.__dict__["_call_impl"] = partial(_called, recorder, path, module)
    try:
        yield
    finally:
        for _, module in named:
            module.__dict__.pop("_call_impl", None)


def _called(recorder: "_Recorder", path: str, module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
    recorder.enter(path, args)
    output = type(module)._call_impl(module, *args, **kwargs)
    recorder.leave(output)
    return output


_ATOMIC = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.memory_format})
_NAMES = {
    d: str(d) for d in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool)
}


def _is_tensor(item: Any) -> bool:
    return isinstance(item, torch.Tensor)


class _Recorder(TorchDispatchMode):
    """Writes down operator calls; mixes meta and real tensors safely."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # nothing is compiled here: spare every call the check
        return False

    def __init__(self, *, provenance: bool = True, spare_last: bool = False) -> None:
        super().__init__()
        self.provenance = provenance
        self._spare_last = spare_last
        self.ids: dict[int, int] = {}
        self.values: list[Value] = []
        self.calls: list[OpCall] = []
        self.constants: dict[int, torch.Tensor] = {}
        self.function, self.module = "", ""
        self.sizes: tuple[tuple[int, Expr], ...] = ()
        self.example: ExampleInputs = None
        self.alive: list[torch.Tensor] = []
        self.layouts: dict[int, int] = {}
        self.open = True
        self._aliases = Aliases(self.alive)
        self._chosen: dict[int, torch.Tensor] = {}
        self._run = Mixing()
        self._shadows = Shadows(self.calls, self.values)
        self._foreign: set[int] = set()
        self._modules: list[ModuleCall] = []
        self._stack: list[tuple[str, tuple[int, ...], int, bool]] = []
        self._states: dict[str, int] = {}
        self._inputs: tuple[int, ...] = ()
        self._parameters: set[int] = set()
        self._ending: Ending | None = None

    def begin(
        self,
        states: Mapping[str, torch.Tensor],
        originals: Mapping[int, torch.Tensor],
        example: ExampleInputs,
    ) -> None:
        for name, tensor in states.items():
            self._states[name] = self.ids.get(id(tensor), -1)
            if self._states[name] < 0:
                self._states[name] = self._begin_with(tensor, originals.get(id(tensor)))
            if type(tensor) is nn.Parameter and tensor.numel():
                self._parameters.add(self._states[name])
        self.example = map_tensors(self._input, example)
        self._inputs = tuple(self.ids[id(t)] for t in tensors_of(self.example))

    def _input(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        stand_in = tensor.to("meta") if tensor.is_floating_point() else tensor.to("cpu", copy=True)
        value = self._begin_with(stand_in, tensor)
        if is_additive_mask(tensor):
            self._shadows.hold(value, tensor.cpu())
        return stand_in

    def _begin_with(self, tensor: torch.Tensor, original: torch.Tensor | None) -> int:
        value = self._new(tensor)
        if not tensor.is_meta:
            same = original is not None and original.device == tensor.device  # and nothing will write to it
            self._shadows.hold(value, original.detach() if original is not None and same else tensor.clone())
        return value

    def value_of(self, tensor: torch.Tensor) -> torch.Tensor:
        """What a tensor holds; `TraceError` where float data decides it."""
        if not self._run.is_unknown(tensor):
            return tensor
        found = self._shadows.read([self._known(tensor)])
        if found is None:
            return self._after_the_end(tensor, ValueRead(".tolist(), .numpy()"))
        return found[0]

    def _after_the_end(self, tensor: torch.Tensor, error: ValueRead) -> torch.Tensor:
        """A stand-in for a value that is read when all parameters have been used. Else raises the error."""
        if self._ending is None:
            used = {value for call in self.calls for value in call.inputs}
            if not self._parameters or not self._parameters <= used:
                raise error
            read = self.ids[id(tensor)]
            found = {self.ids[id(t)] for t in held(self.alive, call_with.__code__)} | {read}
            given = {*self._inputs, *self._states.values(), *self.constants}
            outputs = tuple(sorted(found - given))
            self.open = False
            self._ending = Ending(error, self.module, len(self.calls), len(self.values), outputs)
            for value in {*outputs, *self._inputs}:
                self._shadows.hold_ones(value)
        return torch.ones(tensor.shape, dtype=tensor.dtype)

    def enter(self, path: str, args: Any) -> None:
        alone = len(args) == 1 and isinstance(args[0], torch.Tensor)
        tensors = args if alone else list(filter(_is_tensor, tree_leaves(args)))
        inputs = tuple([self.ids[id(t)] for t in tensors if id(t) in self.ids])
        self._stack.append((path, inputs, len(self.calls), alone and len(inputs) == 1))
        self.module = path

    def leave(self, output: Any) -> None:
        path, inputs, first, plain = self._stack.pop()
        self.module = self._stack[-1][0] if self._stack else ""
        alone = isinstance(output, torch.Tensor)
        tensors = (output,) if alone else output_tensors(output)
        outputs = tuple([self.ids[id(t)] for t in tensors if id(t) in self.ids])
        plain = plain and alone and len(outputs) == 1
        form = "t" if alone else form_of(output)
        self._modules.append(ModuleCall(path, inputs, outputs, first, len(self.calls), plain, form))

    def finish(self, output: Any, compared: Mapping[Arith, tuple[bool, str]]) -> Trace:
        leaves = output_tensors(output)
        if not leaves:
            raise TraceError(
                f"the forward returned no tensor (a {type(output).__name__}): nothing can be followed"
            )
        outputs = tuple(self.ids[id(t)] for t in leaves if id(t) in self.ids)
        ending, calls, values, modules = self._ending, self.calls, self.values, self._modules
        if ending is not None:
            calls, values, outputs = calls[: ending.calls], values[: ending.values], ending.outputs
            modules = [ending.cut(m) for m in modules if m.first_op < ending.calls]
        elif self._aliases.found:
            calls, modules = without_idle(calls, modules, outputs)
        names: dict[int, list[str]] = {}
        for name, value in self._states.items():
            names.setdefault(value, []).append(name)
        graph = Graph(
            calls=tuple(calls),
            values=tuple(values),
            inputs=self._inputs,
            outputs=outputs,
            states=dict(self._states),
            constants=tuple(v for v in self.constants if v < len(values)),
            modules=tuple(modules),
            names={value: tuple(found) for value, found in names.items()},
            ending=None if ending is None else ending.module,
        )
        return Trace(
            graph=graph,
            constants={v: t for v, t in self.constants.items() if v < len(values)},
            chosen={v: t for v, t in self._chosen.items() if v < len(values)},
            compared=compared,
        )

    def _new(self, tensor: torch.Tensor) -> int:
        value = len(self.values)
        dtype = tensor.dtype
        self.values.append(Value(value, tuple(tensor.shape), _NAMES.get(dtype) or str(dtype)))
        self.ids[id(tensor)] = value
        self.layouts.pop(id(tensor), None)
        self.alive.append(tensor)
        return value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # on inside scripted functions, it would take our own reads for the user's
        with torch._C.DisableTorchFunction():
            return self._record(func, args, kwargs)

    def _record(self, func: Any, args: Any, kwargs: Any) -> Any:
        kwargs, traits = kwargs or {}, traits_of(func)
        if traits.masked and has_mask(func, args) and self._reads_unknown(args):
            with self:
                func, args = by_places(func, args)
            traits = traits_of(func)
        tensors: list[torch.Tensor] = []
        inputs: list[int] = []
        refs = self._refs(args, tensors, inputs)
        named = dict(zip(kwargs, self._refs(kwargs.values(), tensors, inputs), strict=True)) if kwargs else {}
        if self._ending is not None:
            self._ending.allow(len(self.calls), not self._parameters.isdisjoint(inputs))
        if traits.mutable and tensors and self._is_foreign(tensors[0]):
            result = tensors[0]  # a counter or cache outside the module's states: its data stays as it was
        else:
            result = self._result(func, traits, tensors, inputs, args, kwargs)
        results = result_tensors(result)
        outputs = [self._new(t) for t in results]
        if traits.random:
            self._hold_drawn(outputs, results)
        self.calls.append(
            OpCall(
                func,
                refs,
                named,
                tuple(inputs),
                tuple(outputs),
                self.module,
                self.function,
                self.sizes,
            )
        )
        return result

    def _refs(self, items: Iterable[Any], tensors: list[torch.Tensor], inputs: list[int]) -> tuple[Any, ...]:
        """The arguments with `Ref`s in place of tensors, which are added to the lists."""
        found: list[Any] = []
        for item in items:
            if type(item) in _ATOMIC:
                found.append(item)
            elif isinstance(item, torch.Tensor):
                value = self._known(item)
                tensors.append(item)
                inputs.append(value)
                found.append(Ref(value))
            else:
                several = isinstance(item, (list, tuple))
                found.append(self._refs(item, tensors, inputs) if several else item)
        return tuple(found)

    def _reads_unknown(self, args: Any) -> bool:
        return any(self._run.is_unknown(t) for t in tree_leaves(args) if isinstance(t, torch.Tensor))

    def _result(
        self,
        func: Any,
        traits: Traits,
        tensors: list[torch.Tensor],
        inputs: list[int],
        args: Any,
        kwargs: Any,
    ) -> Any:
        if traits.needs_values and any(map(self._run.is_unknown, tensors)):
            known = self._shadows.read(inputs)
            if known is not None:
                real = dict(zip(map(id, tensors), known, strict=True))
                args, kwargs = tree_map_only(torch.Tensor, lambda t: real[id(t)], (args, kwargs))
                return func(*args, **kwargs)
            if traits.chooses:
                return self._choose(func, args)
        try:
            return self._run(func, tensors, args, kwargs)
        except ValueRead as error:
            return self._after_the_end(tensors[0], error).item()

    @property
    def chose(self) -> bool:
        """Whether a result that only data could give was chosen."""
        return bool(self._chosen)

    def _choose(self, func: Any, args: Any) -> Any:
        result = everything(func, args, spare_last=self._spare_last)
        self._chosen.update(
            enumerate(result_tensors(result), len(self.values))
        )  # the ids they are given next
        return result

    def _hold_drawn(self, outputs: list[int], results: list[torch.Tensor]) -> None:
        """What was drawn for real cannot be drawn again."""
        for value, tensor in zip(outputs, results, strict=True):
            if not self._run.is_unknown(tensor):
                self._shadows.hold(value, tensor.clone())

    def _known(self, tensor: torch.Tensor) -> int:
        value = self.ids.get(id(tensor))
        if value is None:
            source, value = self._aliases.source(tensor), self._new(tensor)
            if source is not None:
                self.calls.append(alias(self.ids[source], value, self.module))
                return value
            self.constants[value] = tensor
            if not tensor.is_meta:
                self._shadows.hold(value, tensor)
                self._foreign.add(tensor.untyped_storage().data_ptr())
        return value

    def _is_foreign(self, tensor: torch.Tensor) -> bool:
        return not tensor.is_meta and tensor.untyped_storage().data_ptr() in self._foreign
