"""Which units go: per group by ratio, or across groups of identical topology."""

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

import numpy as np

from penjing.core import UsageError
from penjing.core._groups import PruneGroup
from penjing.structure import Structure

DEFAULT_GRANULARITY = ("channel", "neuron", "head", "kv_head", "embed", "expert", "hidden")
KNOWN_GRANULARITY = (*DEFAULT_GRANULARITY, "head_dim", "group")
ROUNDED = frozenset({"channel", "neuron", "embed", "hidden"})
GLOBAL_FLOOR = 0.1
WIDE = 4

Selection = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Wish:
    """How many units should stay per group, and the ascending counts that the options allow it."""

    kept: Mapping[str, int]
    choices: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """How many of n units stay at a ratio: max(min_kept, round_to * floor(n (1 - ratio) / round_to + 1/2)), at most n.

    Groups with room for `WIDE` steps that are `coarser` times as long take those.

    >>> Rounding(min_kept=1, round_to=8).kept(64, 0.3, "channel")
    48
    >>> Rounding(min_kept=1, round_to=1).kept(5, 0.5, "channel")
    3
    """

    min_kept: int = 1
    round_to: int = 1
    coarser: int = 1

    def __post_init__(self) -> None:
        for name in ("min_kept", "round_to", "coarser"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name}={value!r} must be an integer of at least 1")

    def kept(self, n: int, ratio: float, granularity: str) -> int:
        step = self.step(n, granularity)
        return min(n, max(self.min_kept, step * floor(n * (1 - ratio) / step + 0.5)))

    def choices(self, group: PruneGroup, kept: int, least: int = 1) -> np.ndarray:
        """Counts that the rounding allows a group that should keep `kept`: also itself, and all of its units."""
        step, low = self.step(len(group), group.granularity), max(self.min_kept, least)
        return np.union1d(np.arange(-(-low // step) * step, len(group), step), [kept, len(group)])

    def step(self, n: int, granularity: str) -> int:
        if granularity not in ROUNDED:
            return 1
        long = self.round_to * self.coarser
        return long if n >= WIDE * long else self.round_to


def floor_choices(group: PruneGroup, rounding: Rounding) -> np.ndarray:
    """The counts that a group may take where every group keeps a tenth of its units, ascending."""
    return rounding.choices(
        group, len(group), max(rounding.min_kept, int(np.ceil(GLOBAL_FLOOR * len(group))))
    )


def names_of(option: str, value: object) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    found = (value,) if isinstance(value, str) else value
    if not isinstance(found, (tuple, list, set, frozenset)) or not all(isinstance(v, str) for v in found):
        raise UsageError(f"{option}={value!r} must be a name or a list of names")
    return tuple(found)


def prunable(
    structure: Structure, *, granularity: Sequence[str], protect: Sequence[str], exact_only: bool
) -> tuple[PruneGroup, ...]:
    """Groups that may shrink under these options.

    Raises `UsageError` for unknown granularities and for protects that match nothing.
    """
    unknown = [g for g in granularity if g not in KNOWN_GRANULARITY]
    if unknown:
        raise UsageError(f"unknown granularity {unknown}; known: {', '.join(KNOWN_GRANULARITY)}")
    names = [name for state in structure.states for name in state.names]
    for pattern in protect:
        if not any(matches(name, pattern) for name in names):
            raise UsageError(
                f"protect={pattern!r} matches no module path, pattern or parameter name of this network"
            )
    aliases = {s.names[0]: s.names for s in structure.states}
    return tuple(
        group
        for group in structure.groups
        if group.granularity in granularity
        and len(group) > 1
        and not (exact_only and group.fidelity == "renormalized")
        and not any(matches(n, p) for p in protect for slot in group.slots for n in aliases[slot.name])
    )


def matches(name: str, pattern: str) -> bool:
    """Whether a tensor name is, lies under, or fits a path or glob pattern."""
    path = name.rpartition(".")[0]
    return (
        name == pattern
        or name.startswith(f"{pattern}.")
        or fnmatch.fnmatch(name, pattern)
        or fnmatch.fnmatch(path, pattern)
    )


def check_ratio(ratio: object) -> float:
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < 1:
        raise UsageError(
            f"ratio={ratio!r} must lie inside (0, 1): it is the share of units removed per group"
        )
    return float(ratio)


def ratios_per_group(groups: Sequence[PruneGroup], ratio: float | Mapping[str, float]) -> dict[str, float]:
    """Group name -> ratio; a mapping gives ratios by path pattern (first match wins), others are left alone."""
    if not isinstance(ratio, Mapping):
        return dict.fromkeys((g.name for g in groups), check_ratio(ratio))
    found: dict[str, float] = {}
    unused = dict.fromkeys(ratio)
    for group in groups:
        for pattern, value in ratio.items():
            check_ratio(value)
            if any(matches(slot.name, pattern) for slot in group.slots if slot.dim == 0):
                found[group.name] = float(value)
                unused.pop(pattern, None)
                break
    if unused:
        raise UsageError(f"ratio patterns that match no prunable group: {', '.join(map(repr, unused))}")
    return found


def uniform(groups: Sequence[PruneGroup], ratios: Mapping[str, float], rounding: Rounding) -> Wish:
    """Each group by its own ratio; groups without one stay whole."""
    able = [g for g in groups if g.name in ratios]
    kept = {g.name: rounding.kept(len(g), ratios[g.name], g.granularity) for g in able}
    return Wish(kept, {g.name: rounding.choices(g, kept[g.name]) for g in able})


def across(
    groups: Sequence[PruneGroup],
    scores: Mapping[str, np.ndarray],
    ratio: float,
    rounding: Rounding,
    ranks: Mapping[str, int],
) -> Wish:
    """Units ranked together within groups of identical topology (isomorphic ranking, Fang et al., ECCV 2024).

    Alike are groups of one granularity whose units own as much of as many tensors, along the same dims of tensors of
    the same rank (`ranks`, by name); widths and kernel sizes may differ. Scores are divided by their group's mean
    first; at least 10% of each group stays.
    """
    by_topology: dict[object, list[PruneGroup]] = {}
    for group in groups:
        by_topology.setdefault(_topology(group, ranks), []).append(group)
    kept: dict[str, int] = {}
    choices: dict[str, np.ndarray] = {}
    for alike in by_topology.values():
        relative = {
            g.name: scores[g.name] / max(float(np.mean(np.abs(scores[g.name]))), 1e-30) for g in alike
        }
        pooled = np.sort(np.concatenate([relative[g.name] for g in alike]))
        wanted = round(len(pooled) * ratio)
        threshold = pooled[wanted] if wanted < len(pooled) else np.inf
        for group in alike:
            below = int((relative[group.name] < threshold).sum())
            least = max(rounding.min_kept, int(np.ceil(GLOBAL_FLOOR * len(group))))
            stay = rounding.kept(len(group), below / len(group), group.granularity)
            kept[group.name] = min(len(group), max(stay, least))
            choices[group.name] = rounding.choices(group, kept[group.name], least)
    return Wish(kept, choices)


def _topology(group: PruneGroup, ranks: Mapping[str, int]) -> object:
    return group.granularity, tuple(sorted((s.dim, s.index.shape[1], ranks[s.name]) for s in group.slots))


def lowest(scores: np.ndarray, count: int) -> tuple[int, ...]:
    """The `count` lowest-scored unit numbers; ties go by number."""
    if count <= 0:
        return ()
    limit = np.partition(scores, count - 1)[count - 1]
    chosen = scores < limit
    chosen[np.flatnonzero(scores == limit)[: count - np.count_nonzero(chosen)]] = True
    return tuple(np.flatnonzero(chosen).tolist())
