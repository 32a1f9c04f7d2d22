"""Where a factor can go: which parameters must be scaled so that given values are scaled and nothing else changes.

One walk backwards over the graph gives every value the factor its elements must be scaled by: 1 where an op is not
homogeneous in it, the factor itself through views, sums and products. Factors are tensors that broadcast to the
value's shape (size 1 where they do not vary); NaN marks elements that nothing reads.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from penjing.core._graph import Graph, OpCall, Ref
from penjing.surgery._constants import Site
from penjing.surgery._homogeneous import PRODUCTS, PULLS, Need, Place, agreed, is_one

FAR = 10**9


def fold(graph: Graph, choices: Sequence[Sequence[Site]], learned: set[int]) -> dict[int, Need] | None:
    """Parameter value -> factors that satisfy one site of every sequence of alternatives; None if none do.

    Alternatives are tried in order. Where a walk meets conflicts, one site that each blames goes to its next
    alternative for good, so the walks are bounded by the alternatives of a site.
    """
    reach, readers = _reach(graph, learned), _readers(graph)
    options = [
        sorted((s for c in found for s in _ways(graph, c, readers)), key=lambda s: reach[s.value])
        for found in choices
    ]
    options = [[s for s in found if reach[s.value] < FAR] for found in options]
    while all(options):
        walk = _Walk(graph, [found[0] for found in options], learned, reach, readers)
        factors = walk.run()
        if not walk.conflicts:
            return factors
        for number in {_culprit(blame, options) for blame in walk.conflicts}:
            options[number].pop(0)
    return None


def _culprit(blame: Collection[int], options: Sequence[Sequence[Site]]) -> int:
    """The blamed site with most alternatives left, the last of equals."""
    return max(blame or range(len(options)), key=lambda number: (len(options[number]), number))


def _ways(graph: Graph, site: Site, readers: Mapping[int, list[int]]) -> list[Site]:
    """The site itself, and the other operand of the first product its result meets."""
    found = [site]
    call = graph.calls[site.call]
    while len(call.outputs) == 1 and call.outputs[0] not in graph.outputs:
        after = readers.get(call.outputs[0], [])
        if len(after) != 1:
            break
        before, position = call.outputs[0], after[0]
        call = graph.calls[position]
        packet = call.op.overloadpacket
        if packet in PRODUCTS:
            others = [v for v in _factors(call) if v != before]
            if before in _factors(call):
                found.extend(Site(position, v, site.factor) for v in others)
            break
        if packet not in PULLS or len(call.inputs) != 1:
            break
    return found


def _readers(graph: Graph) -> dict[int, list[int]]:
    """Value -> the calls that read it, without those whose results nothing reads."""
    found: dict[int, list[int]] = {}
    outputs = set(graph.outputs)
    for position in range(len(graph.calls) - 1, -1, -1):
        call = graph.calls[position]
        if call.op._schema.is_mutable or any(v in found or v in outputs for v in call.outputs):
            for value in dict.fromkeys(call.inputs):
                found.setdefault(value, []).append(position)
    return found


def _factors(call: OpCall) -> list[int]:
    return _at(call, PRODUCTS[call.op.overloadpacket].factors)


def _addends(call: OpCall) -> list[int]:
    return _at(call, PRODUCTS[call.op.overloadpacket].addends)


def _at(call: OpCall, places: Sequence[int]) -> list[int]:
    return [call.args[p].value for p in places if p < len(call.args) and isinstance(call.args[p], Ref)]


def _reach(graph: Graph, learned: set[int]) -> dict[int, int]:
    """Steps back from a value to the parameters that scale it; FAR where none do."""
    found = {v.id: 0 if v.id in learned else FAR for v in graph.values}
    for call in graph.calls:
        packet = call.op.overloadpacket
        if packet in PRODUCTS:
            factors = _factors(call)
            near = FAR if len(set(factors)) < len(factors) else min((found[v] for v in factors), default=FAR)
            near = max([near, *(found[v] for v in _addends(call))])
        elif packet in PULLS and _is_homogeneous(call):
            every = min if PULLS[packet].joins else max  # a walk asks only for the parts that it needs
            near = every((found[v] for v in call.inputs), default=FAR)
        else:
            near = FAR
        for value in call.outputs:
            found[value] = min(FAR, near + 1)
    return found


def _is_homogeneous(call: OpCall) -> bool:
    return PULLS[call.op.overloadpacket].numbers_allowed or not any(
        isinstance(a, (int, float)) and a for a in call.args[1:2]
    )


@dataclass(slots=True)
class _Walk:
    """One try: the sites, one per difference, and what they ask of every value."""

    graph: Graph
    sites: Sequence[Site]
    learned: set[int]
    reach: Mapping[int, int]
    readers: Mapping[int, list[int]]
    needs: dict[int, Need] = field(default_factory=dict)
    blames: dict[int, frozenset[int]] = field(default_factory=dict)
    conflicts: list[frozenset[int]] = field(default_factory=list)

    def run(self) -> dict[int, Need]:
        readers = self.readers
        extra: dict[tuple[int, int], list[int]] = {}
        for number, site in enumerate(self.sites):
            extra.setdefault((site.call, site.value), []).append(number)
        asked = {site.call for site in self.sites}
        for position in range(len(self.graph.calls) - 1, -1, -1):
            for value in self.graph.calls[position].outputs:
                self._settle(value, readers.get(value, []), extra, asked)
        rest = (*self.graph.inputs, *self.graph.constants, *self.graph.names)
        for value in dict.fromkeys(rest):
            self._settle(value, readers.get(value, []), extra, asked)
            if value in self.needs and value not in self.learned:
                self.conflicts.append(self.blames[value])
        return {v: need for v, need in self.needs.items() if v in self.learned}

    def _settle(
        self, value: int, readers: list[int], extra: Mapping[tuple[int, int], list[int]], asked: set[int]
    ) -> None:
        """The factor of one value, agreed between everything that reads it."""
        calls = self.graph.calls
        if not any(p in asked or any(o in self.needs for o in calls[p].outputs) for p in readers):
            return
        shape = self.graph.values[value].shape
        need: Need = torch.full([1] * len(shape), float("nan"), dtype=torch.float64)
        blame: frozenset[int] = frozenset()
        if value in self.graph.outputs:
            need = torch.ones_like(need)
        for position in readers:
            found, why = self._pulled(position, value)
            for number in extra.get((position, value), ()):
                found = None if found is None else found * self.sites[number].factor
                why |= {number}
            merged = None if found is None else agreed(need, found)
            if merged is None:
                self.conflicts.append(blame | why)
                return
            need, blame = merged, blame | why
        if not is_one(need):
            self.needs[value], self.blames[value] = need, blame

    def _need(self, value: int) -> Need:
        """1 unless asked otherwise, NaN for what nothing reads."""
        read = value in self.readers or value in self.graph.outputs
        fill = 1.0 if read else float("nan")
        rank = len(self.graph.values[value].shape)
        return self.needs.get(value, torch.full([1] * rank, fill, dtype=torch.float64))

    def _pulled(self, position: int, value: int) -> tuple[Need | None, frozenset[int]]:
        """What one reader asks of a value (None: what it cannot give), and for which sites."""
        call = self.graph.calls[position]
        blame = frozenset(b for o in call.outputs for b in self.blames.get(o, ()))
        outputs = [self._need(o) for o in call.outputs]
        one = torch.ones([1] * len(self.graph.values[value].shape), dtype=torch.float64)
        packet = call.op.overloadpacket
        if packet in PRODUCTS:
            chosen = min(_factors(call), key=self.reach.__getitem__, default=-1)
            if value != chosen and value not in _addends(call):
                return one, blame
            pull = PRODUCTS[packet].pull
        elif packet in PULLS and _is_homogeneous(call):
            pull = PULLS[packet].pull
        elif all(is_one(n) for n in outputs):
            return one, blame
        else:
            return None, blame
        return pull(Place(self.graph, call, value), outputs), blame
