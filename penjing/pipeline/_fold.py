"""Networks as they are handed over and timed: with batch norms folded, where the recipe says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from penjing.pipeline._job import Inputs, Job, write_plan, write_state
from penjing.pipeline._settle import folds
from penjing.surgery import fold_norms

STEP = "fold"


def fold_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """The trained slim network with its batch norms folded, proven to compute the same."""
    folded, plan = fold_norms(job.trained(), job.inputs.example())
    write_plan(job.plan("prune").then(plan), out, STEP)
    write_state(folded, out, STEP)
    figures["norms"] = len(plan.edits)


def deployed(inputs: Inputs, model: nn.Module) -> nn.Module:
    """A rival as it is timed: treated as the slim network is."""
    return fold_norms(model, inputs.example())[0] if folds(inputs.recipe) else model


def fold_notes(figures: Mapping[str, Any], alone: Mapping[str, Any] | None) -> list[str]:
    """What the user should know of a fold step with these figures, and what folding does to the whole network."""
    if not figures.get("norms") or alone is None:
        return []
    one = figures["norms"] == 1
    what = "1 batch norm was folded into the layer before it" if one else ""
    what = what or f"{figures['norms']} batch norms were folded into the layers before them"
    return [f"{what}, which changes no answer; on the whole network that alone gives {alone['ratio']:.2f}x"]
