"""Milliseconds of a network at any widths, from operators timed at a few.

The widths of all groups are drawn at random several times; each network so made is run on the target runtime, which
tells the time of every operator it executes and the shapes of its tensors. A dim of a tensor is recognised by the sizes
it takes: they are those of one dim of the traced graph, or in proportion to it. So an operator's time becomes a
function of the widths around it, whatever the runtime fused or renamed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from penjing.search._extents import Extents, Size, groups_in, size_at
from penjing.search._kind_time import parts_by_kind
from penjing.search._node_time import Law, Seen, fit
from penjing.structure import Structure

FEWEST = 4  # networks in which an operator must have run to get a law of its own
AGREE = 0.75  # share of the networks in which a dim must be what it is taken for
STEPS = (2, 4, 8, 16, 32)  # channels that blocked layouts round up to
NOISE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One network: units kept by group name, its operators by key, and its milliseconds as a whole."""

    kept: Mapping[str, int]
    operators: Mapping[str, Seen]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Told:
    """A dim that is `size` * by / of, rounded up to `step`."""

    size: Size
    by: int = 1
    of: int = 1
    step: int = 1

    @property
    def varies(self) -> bool:
        return not isinstance(self.size, int)

    def at(self, kept: Mapping[int, Any]) -> Any:
        """The dim for kept counts: ints, or arrays of them."""
        return -(-size_at(self.size, kept) * self.by // (self.of * self.step)) * self.step


@dataclass(frozen=True, slots=True)
class Timed:
    """One operator's milliseconds as a function of kept counts (group number -> units)."""

    key: str
    law: Law
    tensors: tuple[tuple[Told, ...], ...]
    groups: frozenset[int]

    def cost(self, kept: Mapping[int, Any]) -> Any:
        return self.law.time([[dim.at(kept) for dim in dims] for dims in self.tensors], varies(self.tensors))


def varies(tensors: Sequence[Sequence[Told]]) -> list[list[bool]]:
    return [[dim.varies for dim in dims] for dims in tensors]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """`parts` sum up to the milliseconds of one forward. `error` is the median over the observed networks of how far
    each is predicted from the others, as a share of its time; `unexplained` is the share of time of operators whose
    sizes could not be told, `reused` how many of the networks an earlier search had timed.
    """

    structure: Structure = field(repr=False)
    parts: tuple[Any, ...] = field(repr=False)
    observations: tuple[Observation, ...] = field(repr=False)
    error: float
    unexplained: float
    stepped: bool  # parts are no polynomials of widths; they take arrays of them
    reused: int = 0

    def milliseconds(self, kept: Mapping[str, int]) -> float:
        """The forward's predicted time with these units kept, by group name; groups left out stay whole."""
        counts = {i: kept.get(g.name, len(g)) for i, g in enumerate(self.structure.groups)}
        return sum(part.cost(counts) for part in self.parts)

    def scaled(self, factor: float) -> "LatencyTable":
        """The same table with all times `factor` times as long."""
        parts = tuple(_Scaled(part, factor) for part in self.parts)
        return replace(self, parts=parts)


@dataclass(frozen=True, slots=True)
class _Scaled:
    part: Any
    factor: float

    @property
    def groups(self) -> frozenset[int]:
        return self.part.groups

    def cost(self, kept: Mapping[int, Any]) -> Any:
        return self.factor * self.part.cost(kept)


@dataclass(frozen=True, slots=True)
class _Rest:
    """What passes between and outside of operators, at all widths."""

    milliseconds: float
    groups: frozenset[int] = frozenset()

    def cost(self, kept: Mapping[int, Any]) -> Any:
        return self.milliseconds


def fit_table(structure: Structure, observations: Sequence[Observation]) -> LatencyTable:
    """The table that these networks tell; by kinds of operators where they tell nothing of single ones."""
    library = _Library(structure, observations)
    told = any(one.operators for one in observations)

    def fitted(which: Sequence[int]) -> tuple[tuple[Any, ...], float]:
        if told:
            return _parts(library, observations, which)
        whole = [observations[i].milliseconds for i in which]
        return parts_by_kind(structure, [library.counts[i] for i in which], whole), 0.0

    parts, unexplained = fitted(range(len(observations)))
    errors = []
    for left_out in range(1, len(observations)) if len(observations) > FEWEST + 1 else ():
        found = sum(
            part.cost(library.counts[left_out])
            for part in fitted([i for i in range(len(observations)) if i != left_out])[0]
        )
        errors.append(abs(found / observations[left_out].milliseconds - 1))
    return LatencyTable(
        structure=structure,
        parts=parts,
        observations=tuple(observations),
        error=median(errors) if errors else float("nan"),
        unexplained=unexplained,
        stepped=told,
    )


def _parts(
    library: "_Library", observations: Sequence[Observation], which: Sequence[int]
) -> tuple[tuple[Any, ...], float]:
    """The operators' laws and what is left over, scaled so that they sum up to the networks' times."""
    seen: dict[str, list[int]] = {}
    for i in which:
        for key in observations[i].operators:
            seen.setdefault(key, []).append(i)
    timed: list[Any] = []
    rare, unknown, total = 0.0, 0.0, NOISE
    for key, at in seen.items():
        found = [observations[i].operators[key] for i in at]
        total += sum(one.milliseconds for one in found)
        part = library.timed(key, at, found) if len(at) >= FEWEST else None
        if part is None:
            unknown += sum(one.milliseconds for one in found)
            rare += sum(one.milliseconds for one in found) / len(which)
        else:
            timed.append(part)
    timed.append(_Rest(rare))
    sums = np.array([sum(part.cost(library.counts[i]) for part in timed) for i in which])
    whole = np.array([observations[i].milliseconds for i in which])
    factor, rest = _line(sums, whole)
    return (*(_Scaled(part, factor) for part in timed), _Rest(rest)), unknown / total


def _line(sums: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    """factor and rest >= 0 of whole = factor * sums + rest, missing least in relation to `whole`, few outliers left
    out of it (the median of all slopes through pairs, Theil 1950, where a rest is wanted).
    """
    ratio = float(np.median(whole / sums))
    pairs = [
        (whole[j] - whole[i]) / (sums[j] - sums[i])
        for i in range(len(sums))
        for j in range(i)
        if abs(sums[j] - sums[i]) > 0.1 * sums.max()
    ]
    if len(pairs) < 6:
        return ratio, 0.0
    slope = float(np.median(pairs))
    rest = float(np.median(whole - slope * sums))
    lines = [(ratio, 0.0), *([(slope, rest)] if slope > 0 and rest > 0 else [])]
    return min(lines, key=lambda line: float(np.median(np.abs((line[0] * sums + line[1]) / whole - 1))))


class _Library:
    """The sizes that the structure's dims take in the observed networks, to recognise those of operators by."""

    def __init__(self, structure: Structure, observations: Sequence[Observation]) -> None:
        self.counts = [
            {i: one.kept.get(g.name, len(g)) for i, g in enumerate(structure.groups)} for one in observations
        ]
        extents = Extents(structure)
        dims = [size for value in range(len(structure.graph.values)) for size in extents.of_value(value)]
        dims += [size for state in structure.states for size in extents.of_state(state)]
        self._known: list[tuple[Size, np.ndarray]] = []
        said = set()
        for size in sorted((d for d in dims if not isinstance(d, int)), key=lambda d: len(groups_in([d]))):
            sizes = np.array([size_at(size, kept) for kept in self.counts], dtype=np.int64)
            if sizes.tobytes() not in said:
                said.add(sizes.tobytes())
                self._known.append((size, sizes))
        self._found: dict[tuple[tuple[int, ...], tuple[int, ...]], Told | None] = {}

    def timed(self, key: str, at: Sequence[int], seen: Sequence[Seen]) -> Timed | None:
        """The operator as a function of kept counts; None where some of its sizes cannot be told."""
        shapes = [one.shapes for one in seen]
        if len({tuple(map(len, shape)) for shape in shapes}) > 1:
            return None
        tensors = []
        for number in range(len(shapes[0])):
            dims = list(zip(*(shape[number] for shape in shapes), strict=True))
            told = [self._told(tuple(at), dim) for dim in dims]
            if any(one is None for one in told):
                return None
            tensors.append(tuple(one for one in told if one is not None))
        law = fit(
            [
                Seen(
                    tuple(tuple(int(d.at(self.counts[i])) for d in dims) for dims in tensors),
                    one.milliseconds,
                )
                for i, one in zip(at, seen, strict=True)
            ],
            varies(tensors),
        )
        return Timed(key, law, tuple(tensors), groups_in([d.size for dims in tensors for d in dims]))

    def _told(self, at: tuple[int, ...], dim: tuple[int, ...]) -> Told | None:
        if (at, dim) not in self._found:
            self._found[at, dim] = self._recognised(np.array(at), np.array(dim, dtype=np.int64))
        return self._found[at, dim]

    def _recognised(self, at: np.ndarray, dim: np.ndarray) -> Told | None:
        """What of the structure these sizes are, in most of the networks: some kernels fall back at odd widths."""
        if np.ptp(dim) == 0:
            return Told(int(dim[0]))
        best, most = None, max(FEWEST, int(np.ceil(AGREE * len(dim)))) - 1
        for size, sizes in self._known:
            here = sizes[at]
            divisor = np.gcd(here[0], dim[0])
            by, of = int(dim[0] // divisor), int(here[0] // divisor)
            options = [Told(size, by, of), *(Told(size, step=step) for step in STEPS)]
            for told in options:
                alike = int((-(-here * told.by // (told.of * told.step)) * told.step == dim).sum())
                if alike > most:
                    best, most = told, alike
            if most == len(dim):
                break
        return best
