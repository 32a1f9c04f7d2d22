"""An original and what was cut from it, side by side: which weights both meet, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from penjing.core import Plan, PlanError
from penjing.core._edits import MergeWeight
from penjing.recover._modules import call
from penjing.structure import Meeting, Parameters, Survey, copied, kernels_written_out, survey
from penjing.surgery import apply


@dataclass(frozen=True, slots=True)
class Pairing:
    """Weights that both networks read once, in the same order, those they read repeatedly, and those to be left alone,
    each with the cause.
    """

    once: Mapping[str, Meeting]
    repeated: Mapping[str, Meeting]
    left: Mapping[str, str]


def paired(surveys: tuple[Survey, Survey], scaled: set[str], removed: Mapping[str, Any]) -> Pairing:
    """`surveys` are those of the smaller network and the original. Raises `PlanError` where their orders differ."""
    small, large = surveys[0].once, surveys[1].once
    again = {n: m for n, m in surveys[0].repeated.items() if n in surveys[1].repeated and n not in scaled}
    left: dict[str, str] = {}
    for name in dict.fromkeys(m.name for m in surveys[0].meetings if m.name not in again):
        if name in scaled:
            left[name] = "it carries a factor of the plan"
        elif name not in small or name not in large:
            left[name] = "several operators read it"
    once = {name: meeting for name, meeting in small.items() if name not in left}
    if list(once) != [name for name in large if name in once]:
        raise PlanError(
            "the two networks meet their weights in different orders: was `slim` cut from `model`?"
        )
    return Pairing(once, {name: meeting for name, meeting in again.items() if name in removed}, left)


def surveyed(
    networks: tuple[nn.Module, nn.Module], parameters: tuple[Parameters, Parameters], inputs: Any
) -> tuple[Survey, Survey]:
    """Both networks' surveys, with recurrent kernels written out where there are any."""
    small, large = _each(networks, parameters, inputs)
    if not small.fused:
        return small, large
    with kernels_written_out():
        small, large = _each(networks, parameters, inputs)
    return replace(small, fused=True), large


def _each(
    networks: tuple[nn.Module, nn.Module], parameters: tuple[Parameters, Parameters], inputs: Any
) -> tuple[Survey, Survey]:
    small, large = (
        survey(partial(run_once, n, inputs), p) for n, p in zip(networks, parameters, strict=True)
    )
    return small, large


def base_of(model: nn.Module, plan: Plan) -> nn.Module:
    """The original with only the plan's merged weights, so that both have the same parameters.

    Blocks that the plan drops stay: what they gave to their stream is made up for by what reads and joins it later.
    """
    edits = tuple(e for e in plan.edits if isinstance(e, MergeWeight))
    return apply(model, replace(plan, edits=edits)) if edits else model


def sharing(model: nn.Module) -> nn.Module:
    """The modules once more, around the same tensors: what forwards keep on them does not mix."""
    memo = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copied(model, memo).eval()


def run_once(model: nn.Module, inputs: Any) -> None:
    call(model, inputs)
