"""The methods that are worth a try on a network, in the order of preference."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penjing.core import Recipe
from penjing.criteria import loss_units
from penjing.pipeline._settle import open_options, settled
from penjing.search import stream_names
from penjing.structure import Structure, residual_blocks

STREAM = "embed"
OTHERS = ("obs", "taylor")  # what the measured comparisons of benchmarks/quality.md are won by
STEPPED = ("channel", "neuron", "embed", "hidden")  # what round_to acts on
NARROW = 64  # units, below which a step of 8 is coarse
ADJUSTED = (1, 4, 6)  # places of those that begin with adjustments
DEPTHS = (1 / 8, 1 / 4)  # of the blocks that can go


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to cut: the options of "prune" and "trim" that it sets."""

    criterion: str
    scope: str
    granularity: tuple[str, ...] | None
    protect: tuple[str, ...]
    round_to: int
    blocks: int = 0
    edits: int = 0
    stream: str = ""  # what this candidate does with the residual stream, where others do otherwise

    @property
    def name(self) -> str:
        parts = [self.criterion, *([self.scope] if self.scope != "auto" else []), *self.stream.split()]
        parts += [f"drop-{self.blocks}"] if self.blocks else []
        parts += [f"adjust-{self.edits}"] if self.edits else []
        return "-".join([*parts, *([f"round-{self.round_to}"] if self.round_to != 8 else [])])

    @property
    def about(self) -> str:
        """In words."""
        scopes = {"uniform": "one ratio for all layers", "global": "ranked among layers that are alike"}
        ranked = "ranked by the loss they cost" if loss_units(self.criterion) else scopes["global"]
        parts = [f"units by {self.criterion}", scopes.get(self.scope, ranked)]
        parts += [f"residual {self.stream}"] if self.stream else []
        parts += [f"{self.blocks} block{'s' * (self.blocks > 1)} dropped first"] if self.blocks else []
        parts += [f"{self.edits} component{'s' * (self.edits > 1)} adjusted first"] if self.edits else []
        return ", ".join([*parts, *([f"widths in steps of {self.round_to}"] if self.round_to != 8 else [])])

    def options(self) -> dict[str, dict[str, Any]]:
        """By step, as JSON holds them."""
        kinds = None if self.granularity is None else list(self.granularity)
        prune = {"criterion": self.criterion, "scope": self.scope, "granularity": kinds}
        prune |= {"protect": list(self.protect), "round_to": self.round_to}
        return {"prune": prune, "trim": {"blocks": self.blocks}, "adjust": {"edits": self.edits}}


def candidates(recipe: Recipe, structure: Structure, adjusted: Sequence[int] = ()) -> tuple[Candidate, ...]:
    """What `recipe` leaves open, tried in ways that suit the network; first what it would be without a try. Among the
    others are cuts after as many adjustments as `adjusted` says, the best guess first.
    """
    steps, free = settled(recipe).steps, open_options(recipe)
    kinds = steps.prune.granularity
    rule = Candidate(
        criterion=steps.prune.criterion,
        scope=steps.prune.scope,
        granularity=kinds if kinds is None else tuple(kinds),
        protect=steps.prune.protect,
        round_to=int(steps.prune.round_to),
        blocks=int(steps.trim.blocks),
        edits=int(steps.adjust.edits),
    )
    found = list(dict.fromkeys(one for one in _ways(rule, free, structure) if _sound(one)))
    for place, number in zip(ADJUSTED, adjusted, strict=False):
        found.insert(place, replace(rule, edits=number))
    return tuple(found)[: recipe.steps.choose.candidates]


def _ways(rule: Candidate, free: Collection[str], structure: Structure) -> Iterator[Candidate]:
    yield rule
    criteria = OTHERS if "prune.criterion" in free else ()
    others = [replace(rule, criterion=name) for name in criteria if name != rule.criterion]
    turned = _turned(rule, structure) if "prune.granularity" in free else None
    yield from others
    if turned is not None:
        yield turned
    depths = _depths(structure) if "trim.blocks" in free and not rule.edits else ()
    for blocks in depths[:1]:
        yield replace(rule, blocks=blocks)
    if turned is not None:
        yield from (replace(turned, criterion=one.criterion) for one in others)
    for blocks in depths[1:]:
        yield replace(rule, blocks=blocks)
    inner = turned if turned is not None and turned.stream == "stream whole" else rule
    if "prune.round_to" in free and _narrow(structure):
        yield replace(rule, round_to=1)
    if criteria and "prune.scope" in free:
        yield replace(inner, criterion="taylor", scope="uniform")
        yield replace(inner, criterion="l2", scope="uniform")
        yield replace(rule, criterion="l2", scope="global")


def _sound(one: Candidate) -> bool:
    return one.scope != "loss" or bool(loss_units(one.criterion))


def _turned(rule: Candidate, structure: Structure) -> Candidate | None:
    """The rule with the residual stream whole where it may shrink, or the reverse; None where there is none."""
    present = {group.granularity for group in structure.groups}
    if STREAM in present:
        kinds = tuple(sorted(present))
        if rule.granularity is not None and STREAM not in rule.granularity:
            return replace(rule, granularity=None, stream="stream cut")
        return replace(rule, granularity=tuple(k for k in kinds if k != STREAM), stream="stream whole")
    names = stream_names(structure)
    return replace(rule, protect=(*rule.protect, *names), stream="stream whole") if names else None


def _depths(structure: Structure) -> tuple[int, ...]:
    """How many residual blocks might go."""
    blocks = len(residual_blocks(structure))
    return tuple(dict.fromkeys(round(blocks * share) for share in DEPTHS if round(blocks * share) >= 1))


def _narrow(structure: Structure) -> bool:
    """Whether half of the layers whose widths go by steps are so narrow that steps of 8 are coarse."""
    widths = sorted(len(g) for g in structure.groups if len(g) > 1 and g.granularity in STEPPED)
    return bool(widths) and widths[len(widths) // 2] < NARROW
