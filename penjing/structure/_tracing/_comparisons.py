"""What the code compares: a size that was equal to another in the trace must stay equal, or other code runs.

`if x.size(-1) != self.width: raise`, `min(channels, 32)` and `if heads == 1` are all answered alike after pruning.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from penjing.structure._network._provenance import Arith, TracedInt


@dataclass(frozen=True, slots=True)
class Comparisons:
    """Listens to comparisons of traced ints inside: each with its answer and the module that asked first."""

    module: Callable[[], str]
    heard: dict[Arith, tuple[bool, str]] = field(default_factory=dict)

    def __enter__(self) -> "Comparisons":
        TracedInt.hear = self._hear
        return self

    def __exit__(self, *error: object) -> None:
        TracedInt.hear = None

    def _hear(self, asked: Arith, answer: bool) -> None:
        self.heard.setdefault(asked, (answer, self.module()))
