"""Which smaller member of a family rivals the slim network: the one whose time is closest to its from below."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from penjing.core import SourceError
from penjing.sources import Member

EQUAL = 1.05  # of the slim network's time: what still counts as equal latency
LARGER = 2  # members above the one that bisection found that are timed too


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """A member that takes the data and is smaller than the reference."""

    member: Member
    params: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The rival, its time as a share of the slim network's, and whether it starts from pretrained weights."""

    rival: Priced | None
    share: float | None = None
    pretrained: bool = False
    why: str = ""


@dataclass(kw_only=True)
class Look:
    """What is known of members. Each is priced, timed and asked for its weights once at most, and only if need be.

    `price` gives a member's sizes, or why it is none; `clock` its time as a share of the slim network's; `missing`
    why its pretrained weights cannot be had, "" where they can.
    """

    price: Callable[[Member], Priced | str]
    clock: Callable[[Member], float]
    missing: Callable[[Member], str]
    fetch: Callable[[Member], object] = lambda member: None
    priced: dict[str, Priced | str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)

    def smaller(self, ring: Iterable[Member], *, ready: bool) -> list[Priced]:
        """Those of `ring` that are smaller than the reference, by MACs; with `ready` only those with weights."""
        members = [member for member in ring if not (ready and self.lack(member))]
        found = [self._price(member) for member in members]
        return sorted(
            (one for one in found if isinstance(one, Priced)), key=lambda one: (one.macs, one.params)
        )

    def share(self, one: Priced) -> float:
        if (name := str(one.member)) not in self.shares:
            self.shares[name] = self.clock(one.member)
        return self.shares[name]

    def lack(self, member: Member) -> str:
        if (name := str(member)) not in self.lacks:
            self.lacks[name] = self.missing(member)
        return self.lacks[name]

    def fetched(self, one: Priced) -> bool:
        """Whether the weights of a member, which seemed within reach, are here now."""
        try:
            self.fetch(one.member)
        except SourceError as error:
            self.lacks[str(one.member)] = str(error)
            return False
        return True

    def told(self) -> list[dict[str, Any]]:
        """Every member that was looked at: sizes and time, or why it was none."""
        return [
            {"source": name}
            | ({"why_not": one} if isinstance(one, str) else {"params": one.params, "macs": one.macs})
            | ({"time_share": self.shares[name]} if name in self.shares else {})
            | ({"weights_missing": self.lacks[name]} if self.lacks.get(name) else {})
            for name, one in self.priced.items()
        ]

    def _price(self, member: Member) -> Priced | str:
        if (name := str(member)) not in self.priced:
            self.priced[name] = self.price(member)
        return self.priced[name]


def choose(rings: Iterable[Sequence[Member]], look: Look) -> Choice:
    """The rival at equal latency: with pretrained weights if any such member is, else from scratch.

    The nearest ring that has one decides. Where no member is as fast as the slim network, the smallest of those with
    weights is taken, else the smallest of the nearest ring that has any, and `why` says so.
    """
    known = [tuple(ring) for ring in rings]
    for ready in (True, False):
        for ring in known:
            while found := fitting(look.smaller(ring, ready=ready), look.share):
                if not ready or look.fetched(found):
                    return _chosen(found, look, pretrained=ready)
    for ready in (True, False):
        for ring in known:
            smaller = look.smaller(ring, ready=ready)
            if smaller and (not ready or look.fetched(smaller[0])):
                return _chosen(smaller[0], look, pretrained=ready)
    return Choice(rival=None, why="its family has no smaller member that takes this data")


def fitting(by_macs: Sequence[Priced], share: Callable[[Priced], float]) -> Priced | None:
    """Of members sorted by MACs the slowest that takes at most `EQUAL` of the slim network's time; None: none does.

    Time grows with MACs by and large, so bisection finds about where it is; times of the next two larger ones make up
    for what MACs do not tell. Never more than log2(n) + 3 are timed.
    """
    fits: list[Priced] = []
    low, high = 0, len(by_macs)
    while low < high:
        middle = (low + high) // 2
        if share(by_macs[middle]) <= EQUAL:
            fits.append(by_macs[middle])
            low = middle + 1
        else:
            high = middle
    fits += [one for one in by_macs[low : low + LARGER] if share(one) <= EQUAL]
    return max(fits, key=share, default=None)


def _chosen(found: Priced, look: Look, *, pretrained: bool) -> Choice:
    share, name = look.share(found), str(found.member)
    said = f"it takes {share:.2f} of the slim network's time"
    if share > EQUAL:
        said = f"no member of its family is as fast as the slim network; this is the smallest, and slower: {said}"
    if not pretrained:
        said += f"; from scratch, for pretrained weights cannot be had ({look.lack(found.member)})"
    return Choice(rival=found, share=share, pretrained=pretrained, why=f"{name}: {said}")
