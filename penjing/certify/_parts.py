"""The worst class and the worst slice: parts of the examples in which a candidate is shown to be worse."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from penjing.certify._certify import as_array, as_pair, check_limits
from penjing.certify._tango import harm
from penjing.core import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the examples: accuracies of both networks on them, b right in the reference alone and c in the candidate
    alone; `p` is the p-value of "worse by no more than the margin", adjusted for the number of parts.
    """

    name: str
    n: int
    b: int
    c: int
    reference: float
    candidate: float
    p: float

    @property
    def loss(self) -> float:
        return self.reference - self.candidate

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Every part, the one with the greatest loss first; those in `harmed` are shown to be worse by more than `margin`.

    That a part is not in `harmed` does not show that it is unharmed: small parts tell little.
    """

    margin: float
    alpha: float
    parts: tuple[Part, ...]

    @property
    def harmed(self) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.p <= self.alpha)

    def to_dict(self) -> dict[str, Any]:
        harmed = [part.name for part in self.harmed]
        parts = [part.to_dict() for part in self.parts]
        return {"margin": self.margin, "alpha": self.alpha, "harmed": harmed, "parts": parts}


def worst_parts(
    reference_correct: Any,
    candidate_correct: Any,
    parts: Mapping[str, Any] | Sequence[Any] | np.ndarray,
    margin: float = 0.05,
    alpha: float = 0.05,
) -> Parts:
    """In which parts of the examples the candidate is worse than the reference by more than `margin`.

    `parts` names each example's (its class), [n], or holds by name which examples belong to it, bool [n], where they
    may overlap. Of each part Tango's score test in the other direction, of "worse by no more than the margin", with
    exact p-values (`harm`), which Holm's method adjusts (Scandinavian Journal of Statistics 6, 1979): that any part
    is accused wrongly has a probability of at most `alpha`. Raises UsageError where they are not of the same
    examples.
    """
    reference, candidate = as_pair(reference_correct, candidate_correct)
    margin, alpha = check_limits(margin, alpha)
    found = []
    for name, belongs in _members(parts, len(reference)):
        left, right = reference[belongs], candidate[belongs]
        b, c, n = int((left & ~right).sum()), int((~left & right).sum()), len(left)
        about = {"reference": float(left.mean()), "candidate": float(right.mean())}
        found.append(Part(name=name, n=n, b=b, c=c, p=harm(b, c, n, margin), **about))
    ordered = sorted(holm(found), key=lambda part: (-part.loss, part.p, part.name))
    return Parts(margin=margin, alpha=alpha, parts=tuple(ordered))


def holm(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts with p adjusted for their number: the k-th least times those left, and no less than the ones before."""
    adjusted, least = [], 0.0
    for place, part in enumerate(sorted(parts, key=lambda part: part.p)):
        least = max(least, min(1.0, (len(parts) - place) * part.p))
        adjusted.append(replace(part, p=least))
    return tuple(adjusted)


def _members(parts: Mapping[str, Any] | Sequence[Any] | np.ndarray, n: int) -> list[tuple[str, np.ndarray]]:
    """Names and which examples, bool [n]; parts without examples are left out."""
    if not isinstance(parts, Mapping):
        named = np.asarray([str(one) for one in as_array(parts, "parts").tolist()])
        if named.shape != (n,):
            raise UsageError(f"parts names {named.shape} for {n} examples. Fix: one name per example")
        return [(str(name), named == name) for name in np.unique(named)]
    found = {str(name): as_array(belongs, f"parts[{name!r}]") for name, belongs in parts.items()}
    for name, belongs in found.items():
        if belongs.shape != (n,) or belongs.dtype != bool:
            raise UsageError(
                f"parts[{name!r}] has shape {belongs.shape} and {belongs.dtype}. Fix: true or false for each "
                f"of the {n} examples"
            )
    if len(found) < len(parts):
        raise UsageError(f"parts has names that read alike: {', '.join(map(str, parts))}. Fix: one name each")
    return [(name, belongs) for name, belongs in found.items() if belongs.any()]
