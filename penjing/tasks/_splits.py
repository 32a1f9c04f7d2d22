"""Three disjoint parts of the data: to train on, to select by, and to certify with."""

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from penjing.core import DataError

NAMES = ("train", "selection", "certification")
DEFAULT = (0.60, 0.15, 0.25)
PARTS = {
    "train": 0,
    "training": 0,
    "selection": 1,
    "val": 1,
    "valid": 1,
    "validation": 1,
    "dev": 1,
    "certification": 2,
    "test": 2,
    "testing": 2,
}
Indices = list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Examples by number, in a fixed shuffled order: the first k are a random sample of the split.

    `fingerprint` is the sha256 over content hash and label of each example in that order.
    """

    name: str
    indices: tuple[int, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class ToSplit:
    """Per example what splitting looks at: sha256 of the content, class, the part its source put it in, its group."""

    digests: Sequence[bytes]
    targets: np.ndarray
    labels: Sequence[str]
    parts: Sequence[str | None]
    groups: Sequence[str | None] = ()

    @cached_property
    def ties(self) -> Sequence[bytes]:
        """Per example a name that those share which belong into one split: equal contents, one group."""
        if not any(self.groups):
            return self.digests
        first: dict[bytes, bytes] = {}

        def root(name: bytes) -> bytes:
            while first.setdefault(name, name) != name:
                first[name] = name = first[first[name]]
            return name

        named = [
            digest if g is None else f"group {g}".encode()
            for digest, g in zip(self.digests, self.groups, strict=True)
        ]
        for digest, name in zip(self.digests, named, strict=True):
            first[root(digest)] = root(name)
        return [root(name) for name in named]


def make_splits(
    data: ToSplit, *, seed: int, shares: Sequence[float] | None, minimum: int
) -> tuple[Split, Split, Split]:
    """Split `data` into (train, selection, certification).

    Stratified by class (as far as groups allow); equal contents and examples of one group never straddle splits; a
    function of contents, labels, groups and `seed` alone, not of file names or their order. `shares` are counts (ints)
    or fractions; None is 60/15/25 %.
    Where the source brings its own parts they are kept: a test part certifies (or a validation part, where
    there is no test part), what is missing is carved out of the training part, and copies of held-out
    examples are left out of the other parts. Every class has at least `minimum` examples in each split that
    is not asked to be empty. Raises DataError.
    """
    if len(data.labels) < 2:
        raise DataError(
            f"The data has {len(data.labels)} class ({', '.join(data.labels) or 'none'}); a classifier needs "
            "two. "
            "Fix: add examples of another class"
        )
    keys = [hashlib.sha256(b"%d:" % seed + digest).digest() for digest in data.digests]
    given = _given_parts(data)
    wanted = (1, 1, 1)
    if any(given):
        chosen = _around_given(data, given, keys, shares, minimum)
    else:
        wanted = _counts(len(keys), shares or DEFAULT)
        chosen = _carve(data, list(range(len(keys))), wanted, keys, minimum)
    _check(data, chosen, wanted, minimum)
    train, selection, certification = (
        _split(data, name, part, keys) for name, part in zip(NAMES, chosen, strict=True)
    )
    return train, selection, certification


def contradictions(digests: Sequence[bytes], targets: np.ndarray) -> int:
    """How many different contents appear under more than one class."""
    classes: dict[bytes, set[int]] = {}
    for digest, target in zip(digests, targets.tolist(), strict=True):
        classes.setdefault(digest, set()).add(target)
    return sum(len(found) > 1 for found in classes.values())


def _split(data: ToSplit, name: str, indices: Indices, keys: Sequence[bytes]) -> Split:
    ordered = tuple(sorted(indices, key=lambda i: (keys[i], i)))
    total = hashlib.sha256()
    for i in ordered:
        label = data.labels[int(data.targets[i])].encode()
        total.update(data.digests[i] + len(label).to_bytes(4, "big") + label)
    return Split(name=name, indices=ordered, fingerprint=total.hexdigest())


def _given_parts(data: ToSplit) -> tuple[Indices, Indices, Indices]:
    """Examples by the split that their source names for them; all empty when it names none or only one."""
    found: tuple[Indices, Indices, Indices] = ([], [], [])
    for i, part in enumerate(data.parts):
        if part is not None:
            found[PARTS[part]].append(i)
    if found[1] and not found[2]:
        found = (found[0], [], found[1])
    return found if found[0] and found[2] else ([], [], [])


def _around_given(
    data: ToSplit,
    given: tuple[Indices, Indices, Indices],
    keys: Sequence[bytes],
    shares: Sequence[float] | None,
    minimum: int,
) -> tuple[Indices, Indices, Indices]:
    if shares is not None:
        raise DataError(
            "The data brings its own train and test parts, and splits were asked too. "
            "Fix: leave splits out, or give the data without parts"
        )
    train, selection, certification = given
    known = {int(data.targets[i]) for i in train}
    alien = sorted(
        {data.labels[int(data.targets[i])] for i in selection + certification if data.targets[i] not in known}
    )
    if alien:
        raise DataError(
            f"Labels {', '.join(map(repr, alien))} appear in the test part only, so nothing can be learnt "
            "about them. "
            "Fix: correct these labels, or add examples to the training part"
        )
    held = {data.ties[i] for i in certification}
    selection = [i for i in selection if data.ties[i] not in held]
    held |= {data.ties[i] for i in selection}
    train = [i for i in train if data.ties[i] not in held]
    if selection:
        return train, selection, certification
    share = DEFAULT[1] / (DEFAULT[0] + DEFAULT[1])
    wanted = _counts(len(train), (1.0 - share, share, 0.0))
    train, selection, _ = _carve(data, train, wanted, keys, minimum)
    return train, selection, certification


def _counts(total: int, shares: Sequence[float]) -> tuple[int, int, int]:
    """`shares` as counts of `total` examples; the training part takes what rounding leaves."""
    if len(shares) != 3 or any(share < 0 for share in shares):
        raise DataError(
            f"splits {tuple(shares)} are not (train, selection, certification). Fix: (0.6, 0.15, 0.25)"
        )
    if all(isinstance(share, int) for share in shares):
        train, selection, certification = (int(share) for share in shares)
    else:
        if sum(shares) > 1.0 + 1e-9:
            raise DataError(f"splits {tuple(shares)} sum to more than 1. Fix: fractions as (0.6, 0.15, 0.25)")
        selection, certification = (max(round(total * share), share > 0) for share in shares[1:])
        whole = sum(shares) > 1.0 - 1e-9
        train = total - selection - certification if whole else round(total * shares[0])
    if train + selection + certification > total:
        raise DataError(
            f"splits ask for {train} + {selection} + {certification} examples; there are {total}. Fix: ask "
            "for fewer"
        )
    return train, selection, certification


def _carve(
    data: ToSplit, pool: Indices, wanted: tuple[int, int, int], keys: Sequence[bytes], minimum: int
) -> tuple[Indices, Indices, Indices]:
    """Divide `pool` into parts of `wanted` sizes, exactly where nothing is tied: groups of several classes whole, then
    the rest class by class.
    """
    groups: dict[bytes, Indices] = {}
    for i in pool:
        groups.setdefault(data.ties[i], []).append(i)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), keys[group[0]]))
    grouped = any(data.groups)
    mixed = [group for group in ordered if grouped and len(set(data.targets[group].tolist())) > 1]
    spent = {id(group) for group in mixed}
    share = sum(map(len, mixed)) / max(1, len(pool))
    chosen = _carve_whole(mixed, [round(size * share) for size in wanted])
    classes: list[list[Indices]] = [[] for _ in data.labels]
    for group in ordered:
        if id(group) not in spent:
            classes[data.targets[group[0]]].append(group)
    met = {int(data.targets[i]) for group in mixed for i in group}
    _enough(data, classes, met, sum(1 for size in wanted if size) * minimum)
    left = [max(0, size - len(part)) for size, part in zip(wanted, chosen, strict=True)]
    sizes = np.array([sum(map(len, groups)) for groups in classes])
    for groups_of_class, quota in zip(classes, _quotas(sizes, left, minimum), strict=True):
        _deal(groups_of_class, quota, chosen)
    return chosen


def _carve_whole(groups: Iterable[Indices], wanted: Sequence[int]) -> tuple[Indices, Indices, Indices]:
    """Whole groups, in their order, each to the part that has most room left."""
    chosen: tuple[Indices, Indices, Indices] = ([], [], [])
    room = list(wanted)
    for group in groups:
        part = max((0, 1, 2), key=lambda p: room[p])
        if room[part] > 0:
            room[part] -= len(group)
            chosen[part].extend(group)
    return chosen


def _deal(groups: Iterable[Indices], quota: Sequence[int], chosen: tuple[Indices, Indices, Indices]) -> None:
    """Give groups of copies to the part with most room; then single examples, held-out parts first."""
    room = list(quota)
    for group in groups:
        if len(group) > 1:
            part = max((0, 1, 2), key=lambda p: room[p])
        else:
            part = next((p for p in (1, 2, 0) if room[p] > 0), None)
        if part is not None and room[part] > 0:
            room[part] -= len(group)
            chosen[part].extend(group)


def _quotas(sizes: np.ndarray, wanted: Sequence[int], minimum: int) -> list[tuple[int, int, int]]:
    """Per class how many examples go to each part: in proportion, at least `minimum` where it is wanted."""
    floor = [minimum if total else 0 for total in wanted]
    left = sizes.copy()
    columns = []
    for part in (1, 2):
        rest = floor[0] + (floor[2] if part == 1 else 0)
        columns.append(_proportional(sizes, wanted[part], floor[part], left - rest))
        left = left - columns[-1]
    train = left if sum(wanted) == sizes.sum() else _proportional(sizes, wanted[0], floor[0], left)
    return [(int(a), int(b), int(c)) for a, b, c in zip(train, columns[0], columns[1], strict=True)]


def _proportional(sizes: np.ndarray, total: int, floor: int, cap: np.ndarray) -> np.ndarray:
    """Whole numbers in [floor, cap] near total·sizes/sum(sizes), with sum `total` where possible."""
    ideal = total * sizes / max(1, sizes.sum())
    quota = np.clip(np.floor(ideal).astype(np.int64), floor, np.maximum(cap, floor))
    while quota.sum() < total and (quota < cap).any():
        quota[np.argmax(np.where(quota < cap, ideal - quota, -np.inf))] += 1
    while quota.sum() > total and (quota > floor).any():
        quota[np.argmin(np.where(quota > floor, ideal - quota, np.inf))] -= 1
    return quota


def _enough(data: ToSplit, classes: Sequence[Sequence[Indices]], met: Container[int], needed: int) -> None:
    """Raises DataError for classes, but those `met` already, with fewer different examples than `needed`."""
    counts = enumerate(map(len, classes))
    few = {data.labels[c]: count for c, count in counts if count < needed and c not in met}
    if few:
        raise DataError(_too_few(few, f"the splits need at least {needed} different ones of each class"))


def _check(data: ToSplit, chosen: Sequence[Indices], wanted: Sequence[int], minimum: int) -> None:
    for name, part, size in zip(NAMES, chosen, wanted, strict=True):
        if not part and size:
            raise DataError(
                f"Nothing is left for the {name} split: copies and groups tie the {len(data.ties)} examples into "
                f"{len(set(data.ties))}, each of which goes to one split whole. Fix: add examples of other groups"
            )
        if not part:
            continue
        counts = np.bincount(data.targets[part], minlength=len(data.labels))
        few = {label: int(count) for label, count in zip(data.labels, counts, strict=True) if count < minimum}
        if few:
            need = f"the {name} split needs at least {minimum} of each class"
            several = contradictions(data.digests, data.targets)
            need += (
                f" ({several} contents stand under several classes, and go to one split whole)"
                if several
                else ""
            )
            raise DataError(_too_few(few, need))


def _too_few(few: Mapping[str, int], need: str) -> str:
    shown = ", ".join(f"{label!r} has {count}" for label, count in list(few.items())[:8])
    more = f", and {len(few) - 8} more classes" if len(few) > 8 else ""
    return f"Too few examples: class {shown}{more}; {need}. Fix: add examples, or remove the class"
