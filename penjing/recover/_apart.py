"""Which calibration examples are kept apart to choose a ridge, and how little is too little to refit a weight from."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from penjing.recover._refit import Sums
from penjing.structure import Product

EVERY = 4
ENOUGH = 16  # examples: from fewer, a refit is more about which ones they are
MANY = 128
POSITIONS = 8  # of one example that tell as much as an example more


@dataclass(frozen=True, slots=True)
class Apart:
    """Every fourth batch (`by_batch`), or every fourth example, or a quarter of each: whole examples where there are
    enough, since what is next to each other is alike. `examples` are those of each batch, `before` those before it.
    """

    examples: tuple[int, ...]
    before: tuple[int, ...]
    by_batch: bool

    @staticmethod
    def of(examples: Sequence[int]) -> "Apart":
        """By batch where there are four, and the fourth ones hold their share of examples."""
        *before, total = accumulate(examples, initial=0)
        share = sum(examples[EVERY - 1 :: EVERY])
        return Apart(tuple(examples), tuple(before), share * 2 * EVERY >= total)

    @property
    def total(self) -> int:
        return self.before[-1] + self.examples[-1]

    @property
    def slack(self) -> float:
        """What a difference between ridges may be by chance, as a share; none where examples are many."""
        return EVERY / self.total if self.total < MANY else 0.0

    def rounds(self) -> list[tuple[int, bool]]:
        """The batches, each with whether it is kept apart; those that are split come twice."""
        numbers = range(len(self.examples))
        if self.by_batch:
            return [(n, n % EVERY == EVERY - 1) for n in numbers]
        return [(n, apart) for n in numbers for apart in (False, True)]

    def add(
        self, number: int, item: Product, chosen: Tensor | None, phi: Tensor, y: Tensor, sums: Sequence[Sums]
    ) -> None:
        """Add a batch's inputs and outputs at the positions `chosen` (None for all) to the sums (learned, apart)."""
        if self.by_batch:
            sums[number % EVERY == EVERY - 1].add(phi, y)
            return
        for part, into in enumerate(sums):
            rows = self._mask(number, item, chosen).eq(bool(part)).nonzero().flatten()
            into.add(phi[:, rows], y[:, rows])

    def positions(self, number: int, apart: bool, item: Product, chosen: Tensor | None) -> Tensor | None:
        """The positions of one round."""
        if self.by_batch:
            return chosen
        return _all(item, chosen)[self._mask(number, item, chosen) == apart]

    def _mask(self, number: int, item: Product, chosen: Tensor | None) -> Tensor:
        own, parts = self.examples[number], 1 if self.total >= EVERY else EVERY
        at = _all(item, chosen)
        if len(item.lead) == 2 and item.lead[0] != own == item.lead[1]:
            at = at % own * item.lead[0] + at // own
        units = at * (own * parts) // item.positions
        return (units + parts * self.before[number]) % EVERY == EVERY - 1


def too_little(examples: int, positions: int) -> str:
    """Why a weight is left as it is that met so many positions of so many examples; empty where it is refitted."""
    if max(examples, positions // POSITIONS) >= ENOUGH:
        return ""
    return (
        f"it met {positions} positions of {examples} examples, and fewer than {ENOUGH} examples "
        f"or {ENOUGH * POSITIONS} positions say too little"
    )


def _all(item: Product, chosen: Tensor | None) -> Tensor:
    return torch.arange(item.positions, device=item.data.device) if chosen is None else chosen
