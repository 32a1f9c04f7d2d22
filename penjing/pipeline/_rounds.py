"""Pruning in rounds: how many a budget takes, what each aims at, and what it starts from."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from penjing.core import Budget, Limit, Recipe, UsageError

STEP = 0.7  # what a round leaves


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One of `of` rounds, counted from 1; the last has the steps "prune" and "recover"."""

    number: int
    of: int

    @property
    def prune(self) -> str:
        return self._named("prune")

    @property
    def recover(self) -> str:
        return self._named("recover")

    @property
    def last(self) -> bool:
        return self.number == self.of

    @property
    def before(self) -> "Round | None":
        return Round(number=self.number - 1, of=self.of) if self.number > 1 else None

    def budget(self, limits: Mapping[str, int], sizes: Mapping[str, int]) -> str:
        """The bounds of this round for a network of these `sizes`: every round that is left takes the same share.

        The last round's are `limits` themselves.
        """
        left = self.of - self.number + 1
        bounds = {
            metric: min(sizes[metric], int(sizes[metric] * (limit / sizes[metric]) ** (1 / left)))
            for metric, limit in limits.items()
        }
        return ",".join(_bound(metric, limit) for metric, limit in (limits if self.last else bounds).items())

    def measured(self, limit: Limit) -> str:
        """This round's bound on the reference's time or memory, of which every round takes the same share; the last
        round's is `limit` itself.

        Raises `UsageError` where the rounds before the last cannot know what share milliseconds or bytes are.
        """
        if self.last:
            return str(limit)
        if not limit.relative:
            raise UsageError(
                f"steps.prune.rounds: {self.of} rounds need {limit.metric} as a share of the whole network, "
                f"not {limit}. Fix: write {limit.metric}<=0.5x, or rounds: 1"
            )
        return f"{limit.metric}<={limit.number ** (self.number / self.of):.4g}x"

    def _named(self, step: str) -> str:
        return step if self.last else f"{step}:{self.number}"


def _bound(metric: str, limit: int) -> str:
    """
    >>> _bound("macs", 12), _bound("size", 46796608)
    ('macs<=12', 'size<=46796.608KB')
    """
    return f"size<={limit / 1000!r}KB" if metric == "size" else f"{metric}<={limit}"


ONCE = Round(number=1, of=1)


def rounds_of(recipe: Recipe) -> tuple[Round, ...]:
    """The rounds of a run: as asked, or one where a reconstruction follows the cut, else steps of about 30% below half.

    Measured: MiniLM on TREC at a quarter of the MACs is right on 94.1% after one round of 6 epochs, on 93.8% after four
    of 12 in all. A budget in absolute counts is met in one round unless a number is asked: what share it is shows only
    later.
    """
    asked, of = recipe.steps.prune.rounds, 1
    if asked == "auto" and recipe.steps.recover.reconstruct is not False:
        return (ONCE,)
    shares = [limit.number for limit in Budget.parse(recipe.budget).limits if limit.relative]
    if asked != "auto":
        of = asked
    elif min(shares, default=1.0) < 0.5:
        of = math.ceil(math.log(min(shares)) / math.log(STEP) - 1e-9)
    return tuple(Round(number=number, of=of) for number in range(1, of + 1))


def epochs_in_all(recipe: Recipe) -> int:
    """Epochs of recovery over all rounds: what rivals are given too."""
    return recipe.steps.recover.epochs + (len(rounds_of(recipe)) - 1) * recipe.steps.prune.between
