"""What could be adjusted in a network, and what each adjustment would cost and save."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from penjing.core import DataOptions
from penjing.measure import Timekeeper
from penjing.pipeline._heldout import run_of
from penjing.pipeline._job import read_data
from penjing.pipeline._open import Opened
from penjing.pipeline._run import stored_recipe
from penjing.pipeline._settle import settled
from penjing.recover import call, place
from penjing.search import judged_alone, weighed_alone
from penjing.structure import merge_weights
from penjing.surgery import adjustments
from penjing.tasks import clock_for, reads_for, task_for

Tell = Callable[[str, int, int], None]
EXAMPLES, BATCH = 256, 64
QUICK = 6  # rounds of both networks, timed in turns


def silently(stage: str, done: int, total: int) -> None:
    """Tells nobody."""


def adjustable(
    spec: str,
    opened: Opened,
    network: nn.Module,
    example: Any,
    *,
    runtime: str = "eager",
    data: str | None = None,
    task: str | None = None,
    tell: Tell = silently,
) -> list[dict[str, Any]]:
    """A row for every adjustment of `network`, in the order of kinds, then of the network; for what cannot be adjusted
    one that says why.

    Each that can be has the network's params, macs (of one example) and milliseconds (of one example on one thread, in
    turns with the network as it is, whose own are `now`); with data also error, the share of the variance of what stood
    there that its component misses once it is fitted to 256 examples; of a run also loss, the task's on as many others
    (`now_loss` without it).
    """
    merged, _ = merge_weights(network)
    every = adjustments(network, example)
    able = [one for one in every if one.edit is not None]
    with Timekeeper(
        reference=merged, example_inputs=example, runtime=runtime, threads=1, rounds=QUICK
    ) as keeper:
        found = weighed_alone(
            merged, example, able, lambda model: keeper.time(model, operators=False).milliseconds, tell
        )
        about: dict[str, Any] = {"now": keeper.milliseconds}
    batches, loss = _examples(spec, opened, data, task)
    if batches:
        found = list(judged_alone(merged, found, batches, loss, tell))
        about |= {"now_loss": loss(merged)} if loss is not None else {}
    told = {one.edit: one.to_dict() | about for one in found}
    return [_row(one, told[one.edit] if one.edit else {"why": one.why}) for one in every]


def _row(one: Any, told: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": one.kind, "module": one.module, **told}


def _examples(
    spec: str, opened: Opened, data: str | None, task: str | None
) -> tuple[list[Any], Callable[[nn.Module], float] | None]:
    """What the network is given, and the task's loss on other examples; nothing without data, no loss where nothing
    says that its labels are the network's.
    """
    run = run_of(spec)
    if run is None and data is None:
        return [], None
    name, options = task or "image-classification", DataOptions(source=data or "")
    if run is not None and data is None:
        recipe = settled(stored_recipe(run))
        name, options = recipe.task, recipe.data
    found = read_data(name, options, reads_for(name, opened.reads, spec), 0, alphabet=opened.labels)
    batches = [place(one, torch.device("cpu")) for one in found.batches("train", BATCH, limit=2 * EXAMPLES)]
    half = max(1, len(batches) // 2)
    meant = task_for(name, found, clock=clock_for(name, found, opened.model))
    given = [meant.inputs(batch) for batch in batches[:half]]
    if opened.labels is None or tuple(opened.labels) != tuple(found.labels):
        return given, None

    @torch.no_grad()
    def loss(model: nn.Module) -> float:
        model.eval()
        losses = [float(meant.loss(call(model, meant.inputs(one)), one)) for one in batches[half:] or batches]
        return sum(losses) / len(losses)

    return given, loss
