"""Two networks on the same examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penjing.core import UsageError
from penjing.measure import measure, speedup
from penjing.pipeline._figures import SPLIT, complexity, faster, performance
from penjing.pipeline._open import Opened, open_network
from penjing.pipeline._run import stored_recipe
from penjing.recover import evaluate
from penjing.tasks import ImageData, image_classification, image_data

Splits = tuple[float, float, float]


def compare(
    a: str,
    b: str,
    *,
    data: str,
    image_size: int | None = None,
    batch_sizes: tuple[int, ...] = (32, 1),
    trust: bool = False,
) -> dict[str, Any]:
    """Figures of networks `a` and `b`, answers on the certification split of `data`, and their speed-up.

    The splits are those of `a`, or of `b`, where it is a run on the same data. Keys: data, rows (as in
    metrics.json, named after `a` and `b`), speedup (time of a / time of b per batch size), agreement (share
    of equal answers), only_a_right, only_b_right (counts). It compares counts and is no statistical test.
    """
    seed, splits = _splits_of(data, a, b)
    sides = [_side(spec, data, seed, splits, image_size, trust) for spec in (a, b)]
    answers = [_answers(side) for side in sides]
    first, second = (answer["predictions"] == answer["targets"] for answer in answers)
    rows = [_row(side, answer, batch_sizes[0]) for side, answer in zip(sides, answers, strict=True)]
    return {
        "data": {"name": sides[0].data.name, "split": SPLIT, "n": len(first)},
        "reference": a,
        "rows": rows,
        "speedup": _speedups(sides[0], sides[1], batch_sizes),
        "agreement": float((answers[0]["predictions"] == answers[1]["predictions"]).double().mean()),
        "only_a_right": int((first & ~second).sum()),
        "only_b_right": int((second & ~first).sum()),
    }


def _splits_of(data: str, *specs: str) -> tuple[int, Splits | None]:
    for folder in map(Path, specs):
        if (folder / "run.json").exists():
            recipe = stored_recipe(folder)
            if recipe.data.source == data:
                return recipe.seed, recipe.data.splits
    return 0, None


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A network, the data in its own size and normalisation, and one example."""

    network: Opened
    data: ImageData
    example: torch.Tensor


def _side(
    spec: str, data: str, seed: int, splits: Splits | None, image_size: int | None, trust: bool
) -> Side:
    network = open_network(spec, trust=trust, weights="pretrained")
    frame = network.frame
    size = (frame.size[0], image_size, image_size) if image_size else frame.size
    found = image_data(data, size=size, mean=frame.mean, std=frame.std, seed=seed, splits=splits)
    noise = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    return Side(network=network, data=found, example=noise)


def _answers(side: Side) -> Mapping[str, Any]:
    name, known, labels = side.network.name, side.network.labels, side.data.labels
    if known is not None and known != labels:
        raise UsageError(
            f"{name} knows the classes {', '.join(known[:8])}, the data has {', '.join(labels[:8])}: "
            "compare on the data that the network was made for."
        )
    task = image_classification()
    with torch.no_grad():
        classes = task.logits(side.network.model.eval()(side.example)).shape[-1]
    if classes != len(labels):
        raise UsageError(
            f"{name} answers with {classes} classes, the data has {len(labels)}: "
            "give a run or a saved network that was made for this data."
        )
    return evaluate(side.network.model, task, side.data, SPLIT, 256)


def _row(side: Side, answer: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    sizes = complexity(measure(side.network.model, side.example, batch_size=batch_size))
    return {"name": side.network.name, **sizes, **performance(answer, side.data.labels)}


def _speedups(a: Side, b: Side, batch_sizes: tuple[int, ...]) -> dict[str, Any]:
    """Time of a / time of b, in turns; only for networks that take inputs of one size."""
    if a.example.shape != b.example.shape:
        return {}
    return {
        f"batch_{size}": faster(speedup(a.network.model, b.network.model, a.example, batch_size=size))
        for size in batch_sizes
    }
