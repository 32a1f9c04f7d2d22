"""An original and what was cut from it, side by side: which weights both meet, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from penjing.core import Plan, PlanError
from penjing.core._edits import MergeWeight, ScaleTensor
from penjing.recover._modules import call
from penjing.structure import (
    Meeting,
    Parameters,
    Survey,
    copied,
    free_attention,
    is_stock_attention,
    keep_dense,
    kernels_written_out,
    survey,
)
from penjing.surgery import apply

WIDEST = 8192  # inputs: two matrices as wide and as high are held and solved for
_PRODUCTS = {"mv", "addmv", "dot"}


@dataclass(frozen=True, slots=True)
class Pairing:
    """Weights, or parts of them, that both networks read once, in the same order, those they read repeatedly, and those
    to be left alone, each with the cause.
    """

    once: Mapping[str, Meeting]
    repeated: Mapping[str, Meeting]
    left: Mapping[str, str]


def paired(surveys: tuple[Survey, Survey], own: Parameters, plan: Plan) -> Pairing:
    """`surveys` are those of the smaller network, whose parameters are `own`, and of the original.

    Raises `PlanError` where their orders differ.
    """
    scaled = {e.name for e in plan.edits if isinstance(e, ScaleTensor)}
    small, again = (_able(found, scaled) for found in (surveys[0].once, surveys[0].repeated))
    once = {name: meeting for name, meeting in small.items() if name in surveys[1].once}
    if list(once) != [name for name in surveys[1].once if name in once]:
        raise PlanError(
            "the two networks meet their weights in different orders: was `slim` cut from `model`?"
        )
    again = {name: m for name, m in again.items() if name in surveys[1].repeated and name in plan.removed}
    taken = {m.name for m in (*once.values(), *again.values())}
    left = {
        name: "it carries a factor of the plan" if name in scaled else _cause(name, surveys)
        for name in _weights(own, surveys[0])
        if name not in taken
    }
    return Pairing(once, again, left)


def check_cut(own: Parameters, whole: Parameters, plan: Plan) -> None:
    """Raises `PlanError` unless the tensors of the smaller network are as large as `plan` leaves the original's."""
    for name, dims in plan.removed.items():
        if name not in own.tensors or name not in whole.tensors:
            continue
        left = [n - len(set(dims.get(dim, ()))) for dim, n in enumerate(whole.tensors[name].shape)]
        if list(own.tensors[name].shape) != left:
            raise PlanError(
                f"{name} is {list(own.tensors[name].shape)} in `slim`, and the plan leaves {left} of the "
                f"{list(whole.tensors[name].shape)} in `model`: was `slim` cut from `model` by this plan?"
            )


def _able(meetings: Mapping[str, Meeting], scaled: set[str]) -> dict[str, Meeting]:
    return {key: m for key, m in meetings.items() if m.name not in scaled and _inputs(m) <= WIDEST}


def _inputs(meeting: Meeting) -> int:
    return meeting.product.matrices.shape[2]


def _weights(own: Parameters, survey: Survey) -> list[str]:
    """Parameters of two and more dims, and vectors that are multiplied with data."""
    return [n for n, t in own.tensors.items() if t.dim() > 1 or _PRODUCTS & survey.readers.get(n, {}).keys()]


def _cause(name: str, surveys: tuple[Survey, Survey]) -> str:
    """Why a weight is not refitted."""
    readers = " and ".join(surveys[0].readers.get(name, ()))
    met = [m for m in surveys[0].meetings if m.name == name]
    if not readers:
        return "no operator reads it"
    if not met:
        return f"what reads it is not refitted: {readers}"
    widest = max(map(_inputs, met))
    if widest > WIDEST:
        return f"its {widest:,} inputs are more than {WIDEST:,}"
    if all(name in survey.repeated for survey in surveys):
        return "several products read it, and nothing of it was removed"
    if len({m.product.weight.storage_offset() for m in met}) > 1:
        return "several operators read parts of it"
    if any(survey.uses.get(name, 0) > 1 for survey in surveys):
        return f"several operators read it: {readers}"
    return "the two networks read it in different ways"


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


def alike(slim: nn.Module, base: nn.Module) -> None:
    """Attention that `slim` runs as its free twin runs so in `base`, in place: both lay out their positions alike."""
    cut = dict(slim.named_modules())
    for path, module in base.named_modules():
        if is_stock_attention(module) and path in cut and not is_stock_attention(cut[path]):
            free_attention(module)
    keep_dense(base)


def sharing(model: nn.Module) -> nn.Module:
    """The modules once more, around the same tensors: what forwards keep on them does not mix."""
    memo = {id(t): t for t in (*model.parameters(), *model.buffers())}
    return copied(model, memo).eval()


def run_once(model: nn.Module, inputs: Any) -> Any:
    return call(model, inputs)
