"""What a reconstruction says of the weights that it refitted."""

from collections.abc import Sequence
from dataclasses import dataclass

from penjing.recover._footprint import PER_INPUT
from penjing.recover._refit import USUAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Refitted:
    """One weight: the share of its wanted outputs' variance that it misses, before and after its refit, over so many
    `positions` for so many `inputs`, at a `ridge` relative to its inputs' mean variance. Without a ridge it was left as
    it is: it missed next to nothing, without positions on the first, a middle and the last batch, or `cause` says why.
    """

    name: str
    before: float = 0.0
    after: float = 0.0
    ridge: float = 0.0
    positions: int = 0
    inputs: int = 0
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """What was refitted, in depth order; `memory` is about what the process grew by at most, in bytes."""

    layers: tuple[Refitted, ...]
    notes: tuple[str, ...]
    examples: int
    memory: int
    seconds: float


def notes_of(layers: Sequence[Refitted]) -> list[str]:
    fitted = [f for f in layers if f.ridge]
    few = [f for f in fitted if f.positions < PER_INPUT * f.inputs]
    little = [f for f in layers if f.cause and f.positions]
    notes: list[str] = []
    if little:
        notes.append(
            f"{len(little)} weights are left as they are, such as {little[0].name}: {little[0].cause}; "
            "give more calibration examples"
        )
    if not few:
        return notes
    worst = min(few, key=lambda f: f.positions / f.inputs)
    most = max(f.ridge for f in few)
    grown = f"their ridge grew up to {most:g}" if most > USUAL else f"their ridge is at most {most:g}"
    return [
        *notes,
        f"{len(few)} weights met fewer than {PER_INPUT} positions per input, such as {worst.name} "
        f"({worst.positions} for {worst.inputs} inputs): {grown}; give more calibration examples",
    ]
