"""What a user can still change where a budget is out of reach."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from penjing.search._select import DEFAULT_GRANULARITY


@dataclass(frozen=True, slots=True, kw_only=True)
class Levers:
    """The options that keep units from going, as they are set."""

    scope: str
    granularity: Sequence[str]
    protect: Sequence[str]
    round_to: int
    min_kept: int = 1
    exact_only: bool = False

    def told(self, called: Callable[[str], str] = str) -> str:
        """Those that are in the way, each as `called` where the user sets it.

        >>> Levers(scope="uniform", granularity=DEFAULT_GRANULARITY, protect=(), round_to=8).told()
        'Fix: raise the budget, or lower round_to (8)'
        """
        return "Fix: " + ", or ".join(("raise the budget", *self._ways(called)))

    def _ways(self, called: Callable[[str], str]) -> Iterator[str]:
        if self.min_kept > 1:
            yield f"lower {called('min_kept')} ({self.min_kept})"
        if self.round_to > 1:
            yield f"lower {called('round_to')} ({self.round_to})"
        if self.protect:
            yield f"take parts out of {called('protect')} ({', '.join(self.protect)})"
        whole = [kind for kind in DEFAULT_GRANULARITY if kind not in self.granularity]
        if whole:
            yield f"let more kinds shrink by {called('granularity')} (now without {', '.join(whole)})"
        if self.scope != "uniform":
            yield f"set {called('scope')} to uniform ({self.scope} keeps a tenth of every group)"
        if self.exact_only:
            yield f"unset {called('exact_only')}"
