"""Activations of another kind."""

from collections.abc import Callable, Iterator, Sequence

from torch import nn

from penjing.core._edits import AdjustComponent
from penjing.structure import ACTIVATION
from penjing.surgery._adjustments._propose import Misfit, Site, proposer
from penjing.surgery._adjustments._registry import Options, adjustment, text

KIND = "activation"
MADE: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
}
CHEAPER = {
    "silu": ("hardswish", "relu"), "gelu": ("relu",), "hardswish": ("relu",), "mish": ("hardswish", "relu"),
    "elu": ("relu",), "softplus": ("relu",), "relu6": ("relu",), "leaky_relu": ("relu",),
}  # fmt: skip


@adjustment(KIND, tell=lambda o: f"its activation became {o['to']}")
def other_activation(modules: Sequence[nn.Module], options: Options) -> Sequence[nn.Module]:
    """Everywhere the module is called."""
    to = text(options, "to")
    if to not in MADE:
        raise ValueError(f"to={to!r} is none of {', '.join(MADE)}")
    return (MADE[to](),)


@proposer
def _activations(site: Site) -> Iterator[AdjustComponent | Misfit]:
    for part in site.parts.of(ACTIVATION):
        others = CHEAPER.get(part.name, ())
        if not others:
            yield Misfit(kind=KIND, module=part.path, why=f"{part.name} is as cheap as any, or has no like")
        for to in others:
            yield site.edit(KIND, part, to=to)
