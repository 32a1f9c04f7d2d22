"""`trace`: from a network and example inputs to what may shrink, what goes together, and what stays and why."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import TraceError, UsageError
from penjing.core._graph import Graph
from penjing.core._groups import Frozen, PruneGroup
from penjing.structure._groups._propagate import propagate
from penjing.structure._groups._units import State, list_frozen
from penjing.structure._groups._unread import freeze_unread
from penjing.structure._labels._atoms import FIXED, Atoms, Dim
from penjing.structure._network._alone import alone
from penjing.structure._network._attention import replaceable_modules
from penjing.structure._network._attributes import read_attribute
from penjing.structure._network._calling import ExampleInputs
from penjing.structure._network._collector import collector_paused
from penjing.structure._network._containers import map_tensors
from penjing.structure._network._fingerprint import fingerprint
from penjing.structure._network._merge import merge_weights
from penjing.structure._network._plain import UNREGISTERED, plain_tensors
from penjing.structure._network._provenance import Attr, leaves
from penjing.structure._network._refusals import refuse_unsupported
from penjing.structure._network._walk import every_path, named_parameters
from penjing.structure._rules import Facts, Requirement
from penjing.structure._sizes._couplings import Couplings
from penjing.structure._sizes._requirements import Live, kept_size
from penjing.structure._sizes._settle import settle
from penjing.structure._sizes._solve import solve
from penjing.structure._tracing._trace import Trace, trace_forward
from penjing.structure._training import trains_otherwise


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """A traced network: prune groups, frozen dims with causes, ops without a rule, and the graphs behind them.

    `traces[0]` is the forward in eval mode on the (first) example inputs.
    """

    groups: tuple[PruneGroup, ...]
    frozen: tuple[Frozen, ...]
    unknown_ops: tuple[str, ...]
    policies: tuple[str, ...]
    fingerprint: str
    traces: tuple[Trace, ...]
    facts: tuple[Facts, ...] = field(repr=False)
    states: tuple[State, ...] = field(repr=False)
    live: tuple[Live, ...] = field(repr=False)
    couplings: Couplings = field(repr=False)
    attributes: Mapping[Attr, int] = field(repr=False)
    replaceable: Mapping[str, str] = field(repr=False)
    cache: dict[tuple[int, int], tuple[Dim, ...]] = field(repr=False, default_factory=dict)

    @property
    def graph(self) -> Graph:
        return self.traces[0].graph

    def group(self, name: str) -> PruneGroup:
        found = next((g for g in self.groups if g.name == name), None)
        if found is None:
            raise UsageError(
                f"no group is called {name!r}; the groups are {[g.name for g in self.groups][:20]}"
            )
        return found

    def gone(self, selection: Mapping[str, Iterable[int]]) -> np.ndarray:
        """Mark the atoms of selected units (group name -> unit numbers); bool array over atoms."""
        mark = np.zeros(len(self.facts[0].atoms), dtype=bool)
        by_name = {g.name: g for g in self.groups}
        for name, units in selection.items():
            group = by_name[name] if name in by_name else self.group(name)
            mark[[group.atoms[u] for u in units]] = True
        return mark

    def attributes_after(self, gone: np.ndarray) -> tuple[dict[Attr, int], Live | None]:
        """Integer attributes that must change when the atoms in `gone` go, or the requirement that breaks."""
        solution = solve(self.live, gone, self.attributes.__getitem__)
        changed = {a: v for a, v in solution.attributes.items() if v != self.attributes[a]}
        return changed, solution.broken

    def dims(self, value: int, trace: int = 0) -> tuple[Dim, ...]:
        """Labels of a value of a trace, over unbound roots."""
        found = self.cache.get((trace, value))
        if found is None:
            facts = self.facts[trace]
            found = tuple(facts.atoms.expand(d) if d else d for d in facts.labels[value])
            self.cache[trace, value] = found
        return found

    def shapes_after(self, gone: np.ndarray, trace: int = 0) -> Callable[[int], tuple[int, ...]]:
        """A value's shape once the atoms in `gone` are removed; dims that values share are counted once."""
        facts, values, atoms = self.facts[trace], self.traces[trace].graph.values, self.facts[0].atoms
        known: dict[int, int] = {}
        sizes: dict[tuple[int, ...], int] = {}  # by the columns that dims come down to: many share them

        def size(dim: Dim, full: int) -> int:
            if not dim:
                return full
            found = known.get(id(dim))
            if found is None:
                own = atoms.expand(dim)
                place = tuple(map(id, own))
                if place not in sizes:
                    sizes[place] = kept_size(own, gone)
                found = known[id(dim)] = sizes[place]
            return found

        return lambda value: tuple(map(size, facts.labels[value], values[value].shape))


def trace(model: nn.Module, example_inputs: ExampleInputs | list[ExampleInputs]) -> Structure:
    """See what a network is made of, from one forward per example input. The network is left as it was.

    `example_inputs` is a tensor, a tuple of arguments or a dict of keyword arguments; a list holds alternatives
    (branches, lengths), and what one freezes is frozen for all. Where parameters are reached in training only
    (auxiliary classifiers) or code branches on whether it trains, the training forward is followed too. Weights that a
    forward computes (weight_norm, spectral_norm, parametrizations) are seen merged, under their own names.

    Raises `UsageError` for inputs of the wrong kind and `TraceError` when the forward fails.
    """
    refuse_unsupported(model)
    with alone():
        merged, merging = merge_weights(model)
        structure = trace_merged(merged, example_inputs)
    if merging is None:
        return structure
    policies = (*merging.policies, *structure.policies)
    return replace(structure, fingerprint=merging.fingerprint, policies=policies)


@collector_paused()
def trace_merged(model: nn.Module, example_inputs: ExampleInputs | list[ExampleInputs]) -> Structure:
    """`trace` of a network that is not refused and has no computed weights."""
    alternatives = example_inputs if isinstance(example_inputs, list) else [example_inputs]
    if not alternatives:
        raise UsageError("example_inputs is an empty list: give at least one input the network runs on")
    traces = [trace_forward(model, example) for example in alternatives]
    if _unreached(model, traces) or trains_otherwise(model, traces[0].graph):
        traces.extend(_training_traces(model, alternatives[:1]))
    return analyse(model, traces)


def _unreached(model: nn.Module, traces: Sequence[Trace]) -> bool:
    """Whether there are parameters that no trace reads."""
    used: set[str] = set()
    for item in traces:
        read = {v for call in item.graph.calls for v in call.inputs}
        used.update(name for name, value in item.graph.states.items() if value in read)
    return any(name not in used and p.dim() for name, p in named_parameters(every_path(model)))


def _training_traces(model: nn.Module, examples: Sequence[Any]) -> list[Trace]:
    found = []
    for example in examples:
        try:
            found.append(trace_forward(model, map_tensors(_pair, example), training=True))
        except TraceError:
            continue
    return found


def _pair(tensor: torch.Tensor) -> torch.Tensor:
    """A batch of one as a batch of two: batch norm refuses to train on one value per channel."""
    return torch.cat([tensor, tensor]) if tensor.dim() and tensor.shape[0] == 1 else tensor


@collector_paused()
def analyse(model: nn.Module, traces: Sequence[Trace]) -> Structure:
    """Labels, requirements and groups of traced forwards."""
    atoms = Atoms()
    all_facts: list[Facts] = []
    for item in traces:
        facts = Facts(atoms=atoms, shapes=tuple(v.shape for v in item.graph.values))
        if all_facts:
            first = traces[0].graph
            facts.labels.update(
                {value: all_facts[0].labels[first.states[name]] for name, value in item.graph.states.items()}
            )
        facts.labels.update(_unregistered(atoms, item))
        propagate(facts, item.graph)
        for asked, (answer, module) in item.compared.items():
            cause = f"{module or 'the network'}: compares sizes"
            facts.requirements.append(Requirement(asked, FIXED, cause, size=int(answer)))
        all_facts.append(facts)
    freeze_unread(all_facts, [item.graph for item in traces])
    states = _states(model, traces, all_facts)
    attributes = _attribute_values(model, all_facts)
    settled = settle(all_facts, states, attributes)
    return Structure(
        groups=settled.groups,
        frozen=list_frozen(atoms, states),
        unknown_ops=tuple(dict.fromkeys(op for f in all_facts for op in f.unknown)),
        policies=settled.policies,
        fingerprint=fingerprint(model),
        traces=tuple(traces),
        facts=tuple(all_facts),
        states=tuple(states),
        live=settled.live,
        couplings=settled.couplings,
        attributes=attributes,
        replaceable=replaceable_modules(model),
    )


def _unregistered(atoms: Atoms, traced: Trace) -> dict[int, list[Dim]]:
    """Labels of parameters that no module registers: nobody could load or save them smaller, so they stay."""
    still = atoms.frozen(UNREGISTERED)
    return {
        value: [(np.full(n, still, dtype=np.int64),) if n > 1 else FIXED for n in tensor.shape]
        for value, tensor in traced.constants.items()
        if isinstance(tensor, nn.Parameter)
    }


def _states(model: nn.Module, traces: Sequence[Trace], all_facts: Sequence[Facts]) -> list[State]:
    reached: set[str] = set()
    for item in traces:
        read = {v for call in item.graph.calls for v in call.inputs}
        reached.update(name for name, value in item.graph.states.items() if value in read)
    graph = traces[0].graph
    learned = {name for name, _ in named_parameters(every_path(model))}
    kinds = _state_kinds(model)
    found = []
    plain = {name for name, *_ in plain_tensors(model)}
    for value, names in graph.names.items():
        if plain.issuperset(names) and not reached.intersection(names):
            continue  # kept for other readers than the forward
        labels = tuple(all_facts[0].labels[value]) if reached.intersection(names) else None
        kind = next((kinds[n] for n in names if n in kinds), "")
        shape = graph.values[value].shape
        found.append(State(names, shape, labels, bool(learned.intersection(names)), kind))
    return found


def _state_kinds(model: nn.Module) -> dict[str, str]:
    """Parameter name -> what its module is to people, for naming granularities."""
    found: dict[str, str] = {}
    for path, module in every_path(model):
        recurrent = isinstance(module, (nn.RNNBase, nn.RNNCellBase))
        kind = (
            "recurrent"
            if recurrent
            else "table"
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
            else ""
        )
        if kind:
            found.update(
                (f"{path}.{n}" if path else n, kind) for n, _ in module.named_parameters(recurse=False)
            )
    return found


def _attribute_values(model: nn.Module, all_facts: Sequence[Facts]) -> dict[Attr, int]:
    named = (leaf for f in all_facts for r in f.requirements for leaf in leaves(r.expr))
    wanted = dict.fromkeys(leaf for leaf in named if isinstance(leaf, Attr))
    return {attribute: read_attribute(model, attribute) for attribute in wanted}
