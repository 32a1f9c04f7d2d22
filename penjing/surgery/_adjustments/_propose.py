"""What can be adjusted in a traced network: edits that apply, and why others do not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from penjing.core._edits import AdjustComponent, OptionValue
from penjing.structure import Part, Parts, Structure

Proposer = Callable[["Site"], Iterator["AdjustComponent | Misfit"]]
PROPOSERS: list[Proposer] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """A module that a kind of adjustment could be meant for, and why it does not fit."""

    kind: str
    module: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A traced network and its parts."""

    structure: Structure
    parts: Parts

    def edit(
        self, kind: str, *parts: Part | str, kept: tuple[str, ...] = (), **options: OptionValue
    ) -> AdjustComponent:
        """The edit, with the tensors under the modules that vanish: all but those called `kept`."""
        paths = tuple(part if isinstance(part, str) else part.path for part in parts)
        gone = tuple(
            (name, state.shape[0] if state.shape else 1)
            for state in self.structure.states
            for name in state.names
            if name not in kept and any(name.startswith(f"{path}.") for path in paths)
        )
        named = tuple(sorted((name, value) for name, value in options.items() if value is not None))
        return AdjustComponent(kind=kind, modules=paths, options=named, tensors=gone)

    def weight_shape(self, part: Part) -> tuple[int, ...]:
        """[out, in, ...], however the operation reads it."""
        packet = part.op.op.overloadpacket.__name__
        shape = self.shape(part.op.args[2 if packet == "addmm" else 1].value)
        return shape if packet == "convolution" else shape[::-1]

    def shape(self, value: int) -> tuple[int, ...]:
        return self.parts.shape(value)


def proposer(function: Proposer) -> Proposer:
    PROPOSERS.append(function)
    return function


def proposals(site: Site) -> Iterator[AdjustComponent | Misfit]:
    """By kind, in the order in which the modules run."""
    for propose in PROPOSERS:
        yield from propose(site)


def convolution_options(part: Part) -> dict[str, Any]:
    """A traced convolution's own settings, and the names of its tensors."""
    args = part.op.args
    return {
        "stride": tuple(args[3]),
        "padding": tuple(args[4]),
        "dilation": tuple(args[5]),
        "groups": args[8],
        "weight": part.weight,
        "bias": part.bias,
    }


def layer_options(part: Part) -> dict[str, Any]:
    """Those of a convolution, or of a fully connected layer, which has no settings."""
    if part.kind == "convolution":
        return convolution_options(part)
    return {"weight": part.weight, "bias": part.bias}
