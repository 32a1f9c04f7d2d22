"""Which batch norms get new statistics from calibration data, and why the others keep theirs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from penjing.structure import Meeting, Norm, Survey

LEAST = 32  # values per channel: a variance over fewer is worth less than the one there is


@dataclass(frozen=True, slots=True)
class Norms:
    """`fresh` are those that get new statistics, by the address of their variance; `notes` tell of the others."""

    fresh: frozenset[int]
    notes: tuple[str, ...]

    def settled(self, meetings: Mapping[str, Meeting]) -> dict[str, Meeting]:
        """Products before a norm that keeps its statistics: it takes no offset, and its stream is not made up for."""
        return {
            name: m
            if m.norm is None or address(m.norm) in self.fresh
            else replace(m, norm=None, partner=None)
            for name, m in meetings.items()
        }


def address(norm: Norm) -> int:
    return norm.var.data_ptr()


def norms_of(found: Survey, network: nn.Module, share: float) -> Norms:
    """`found` is the survey of a forward of `network`, which saw one `share`-th of the calibration's examples."""
    names = {b.data_ptr(): n.rpartition(".")[0] or n for n, b in network.named_buffers()}
    met = Counter(t.data_ptr() for norm, _ in found.norms for t in (norm.mean, norm.var))
    copies = [norm for norm, _ in found.norms if not {norm.mean.data_ptr(), address(norm)} <= names.keys()]
    again: dict[int, None] = {}
    few: dict[int, int] = {}
    fresh: set[int] = set()
    for norm, count in found.norms:
        if not {norm.mean.data_ptr(), address(norm)} <= names.keys():
            continue
        if max(met[norm.mean.data_ptr()], met[address(norm)]) > 1:
            again[address(norm)] = None
        elif count * share < LEAST:
            few[address(norm)] = int(count * share)
        else:
            fresh.add(address(norm))
    notes = []
    if copies:
        notes.append(f"{len(copies)} norms run on copies of their statistics and keep them")
    if again:
        notes.append(
            f"{len(again)} batch norms, such as {names[next(iter(again))]}, run several times in a forward and keep "
            "their statistics: one mean and variance cannot be those of several places"
        )
    if few:
        notes.append(
            f"{len(few)} batch norms keep their statistics: they met as few as {min(few.values())} values per channel, "
            f"fewer than {LEAST}; give more calibration examples"
        )
    return Norms(frozenset(fresh), tuple(notes))
