"""One registry of criteria: names to functions that prepare a score per unit."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core import InternalError, UsageError
from penjing.core._groups import PruneGroup
from penjing.structure import Structure

Score = Callable[[PruneGroup, nn.Module], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a criterion may use beside the weights; `structure` is the network's, traced."""

    calibration: Iterable[Any] | None = None
    loss: Callable[[Any, Any], Any] | None = None
    seed: int = 0
    structure: Structure | None = None


Prepare = Callable[[nn.Module, Context], Score]
CRITERIA: dict[str, Prepare] = {}
IN_LOSS: dict[str, str] = {}  # criteria in units of the loss: what a score is, one of KINDS
KINDS = ("additive", "cumulative")
REMARK = "criterion "


def criterion(name: str, in_loss: str = "") -> Callable[[Prepare], Prepare]:
    """Register a criterion under a name; a duplicate raises.

    `in_loss` is for scores in units of the loss, which compare across groups: "additive" where a score is what the loss
    rises by when the unit goes, "cumulative" where it is what the loss rises by once this unit and all lower ones go.
    """

    def register(prepare: Prepare) -> Prepare:
        if name in CRITERIA:
            raise InternalError(f"two criteria are called {name!r}")
        CRITERIA[name] = prepare
        if in_loss:
            IN_LOSS[name] = in_loss
        return prepare

    return register


def loss_units(which: str | Score) -> str:
    """ "additive" or "cumulative" for scores in units of the loss, "" for others.

    A callable says so itself, as its attribute `in_loss`.
    """
    found = getattr(which, "in_loss", "") if callable(which) else IN_LOSS.get(which, "")
    return found if found in KINDS else ""


def remarked(name: str, score: Score, remarks: Iterable[str]) -> Score:
    """The same scores with sentences about them, for whoever reads the plan; `name` is the criterion's."""

    def told(group: PruneGroup, model: nn.Module) -> Any:
        return score(group, model)

    told.__dict__["remarks"] = tuple(f"{REMARK}{name} {remark}" for remark in remarks)
    return told


def remarks_of(score: Score) -> tuple[str, ...]:
    """The sentences of `remarked`, which become policies of the plan."""
    return tuple(getattr(score, "remarks", ()))


def remarks_in(policies: Iterable[str]) -> tuple[str, ...]:
    """Those of a plan's policies that a criterion said."""
    return tuple(policy for policy in policies if policy.startswith(REMARK))


def prepare_criterion(which: str | Score, model: nn.Module, context: Context) -> Score:
    """The scoring function of a registered name, or a user's own `callable(group, model) -> one score per unit`.

    Higher means more important. Raises `UsageError` for an unknown name (the nearest is shown) and where a
    criterion lacks the data it needs.
    """
    if callable(which):
        return which
    if which not in CRITERIA:
        near = difflib.get_close_matches(str(which), CRITERIA, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"no criterion is called {which!r}{hint} Known: {', '.join(sorted(CRITERIA))}")
    return CRITERIA[which](model, context)


def unit_scores(score: Score, group: PruneGroup, model: nn.Module) -> np.ndarray:
    """Scores as float64 of shape (units,). Raises `UsageError` for a wrong number of scores or NaN."""
    found = score(group, model)
    try:
        plain = found.detach().cpu().double() if isinstance(found, torch.Tensor) else found
        values = np.asarray(plain, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise UsageError(f"the criterion gave no numbers for group {group.name!r}: {error}") from error
    if len(values) != len(group):
        raise UsageError(
            f"the criterion gave {len(values)} scores for {len(group)} units of group {group.name!r}"
        )
    if np.isnan(values).any():
        raise UsageError(f"the criterion gave NaN for group {group.name!r}: check the weights and the loss")
    return values
