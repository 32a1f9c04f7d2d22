"""Two networks on the same examples."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penjing.core import DataError, UsageError
from penjing.measure import measure, speedup
from penjing.pipeline._answer import check_answer, shapes
from penjing.pipeline._figures import SPLIT, complexity, performance, same
from penjing.pipeline._heldout import everything, run_of, split_as
from penjing.pipeline._open import Opened, open_network, sized, task_of
from penjing.pipeline._run import stored_recipe
from penjing.pipeline._times import faster
from penjing.recover import call, evaluate
from penjing.runtimes import refuse_unknown_runtime
from penjing.tasks import LabelledData, Task, clock_for, reads_for, task_for

ALL = (
    "The data is not what either was shaped and certified on: all of its examples are used, and some of them may "
    "have been trained on."
)


def compare(
    a: str,
    b: str,
    *,
    data: str,
    image_size: int | None = None,
    batch_sizes: tuple[int, ...] = (32, 1),
    runtime: str = "eager",
    trust: bool = False,
    model: str | None = None,
    task: str | None = None,
) -> dict[str, Any]:
    """Figures of networks `a` and `b`, answers on the certification split of `data`, and their speed-up.

    Where `a` or `b` is a run on these very examples, those that it certified with are used; two runs that
    certified with different ones are refused. On any other data all examples are used, split "all", and `note`
    says so; and it says where nothing tells what the outputs of a source stand for, so that the data's order is
    taken. `model` names the code (file:PATH.py:FACTORY) that a saved network was made from, where it was; `task` is
    needed where neither of the two tells it and they read no pictures.
    Times are those of `runtime`. Keys: data, rows (as in metrics.json, named after `a` and `b`), speedup (time of a /
    time of b per batch size), agreement (share of equal answers), only_a_right, only_b_right (counts). It compares
    counts and is no statistical test.
    """
    refuse_unknown_runtime(runtime)
    task = task or next((told for told in map(task_of, (a, b)) if told), "image-classification")
    opened = [
        open_network(spec, trust=trust, weights="pretrained", original=model, task=task) for spec in (a, b)
    ]
    networks = [_resized(network, image_size) for network in opened]
    run = _judge(data, networks)
    sides = [_side(network, task, data, run) for network in networks]
    answers = [_answers(side) for side in sides]
    first, second = (same(answer["predictions"], answer["targets"]) for answer in answers)
    rows = [_row(side, answer, batch_sizes[0], runtime) for side, answer in zip(sides, answers, strict=True)]
    return {
        "data": {"name": sides[0].data.name, "split": SPLIT if run else "all", "n": len(first)},
        "note": " ".join((*(() if run else (ALL,)), *_assumed(networks))),
        "reference": a,
        "rows": rows,
        "speedup": _speedups(sides[0], sides[1], batch_sizes, runtime),
        "agreement": float(same(answers[0]["predictions"], answers[1]["predictions"]).double().mean()),
        "only_a_right": int((first & ~second).sum()),
        "only_b_right": int((second & ~first).sum()),
    }


def _assumed(networks: list[Opened]) -> list[str]:
    """A remark for each network whose outputs nothing names."""
    return [
        f"Nothing tells what the outputs of {network.name} stand for: they are taken in the order of the data's labels."
        for network in networks
        if network.labels is None
    ]


def _judge(data: str, networks: list[Opened]) -> Path | None:
    """The run whose certification split of `data` both can be measured on; None where neither is one."""
    found: dict[str, tuple[Path, str]] = {}
    for network in networks:
        run = run_of(network.name)
        split = run and split_as(run, data, network.reads)
        if run and split:
            found[network.name] = (run, split.certification.fingerprint)
    if len({fingerprint for _, fingerprint in found.values()}) > 1:
        a, b = (f"{name} (seed {stored_recipe(run).seed})" for name, (run, _) in found.items())
        raise UsageError(
            f"{a} and {b} certified with different examples of {data}: what one held out, the other learnt from. "
            "Fix: shape both with the same --seed and splits, or compare on data that neither has seen"
        )
    return next((run for run, _ in found.values()), None)


def _resized(network: Opened, image_size: int | None) -> Opened:
    return replace(network, reads=sized(network.reads, image_size, network.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A network, the data in its own size and normalisation, and one example."""

    network: Opened
    data: LabelledData
    task: Task
    example: Any


def _side(network: Opened, task: str, data: str, run: Path | None) -> Side:
    reads = reads_for(task, network.reads, network.name)
    alphabet = _alphabet(network) if task == "speech-recognition" else None
    found = split_as(run, data, reads, alphabet) if run else everything(task, data, reads, alphabet)
    if found is None:
        raise DataError(f"{data} has changed while it was read. Fix: compare again once it stays as it is")
    network = network.in_order(found.labels)
    example = found.example(1)
    meant = task_for(task, found, clock=clock_for(task, found, network.model))
    check_answer(network.name, network.model, example, reads, task=meant)
    return Side(network=network, data=found, task=meant, example=example)


def _alphabet(network: Opened) -> tuple[str, ...]:
    if network.labels is None:
        raise UsageError(
            f"Nothing tells which symbols {network.name} spells with, and without them its answers cannot be read. "
            "Fix: give a run, a saved network, or an hf: folder with its vocab.json"
        )
    return network.labels


def _answers(side: Side) -> Mapping[str, Any]:
    name, known, labels = side.network.name, side.network.labels, side.data.labels
    if known is not None and known != labels:
        raise UsageError(
            f"{name} knows the classes {', '.join(known[:8])}, the data has {', '.join(labels[:8])}: "
            "compare on the data that the network was made for."
        )
    with torch.no_grad():
        classes = side.task.logits(call(side.network.model.eval(), side.example)).shape[-1]
    if classes != len(labels):
        raise UsageError(
            f"{name} answers with {classes} classes, the data has {len(labels)}: "
            "give a run or a saved network that was made for this data."
        )
    return evaluate(side.network.model, side.task, side.data, SPLIT, 256)


def _row(side: Side, answer: Mapping[str, Any], batch_size: int, runtime: str) -> dict[str, Any]:
    sizes = complexity(measure(side.network.model, side.example, runtime, batch_size=batch_size))
    return {"name": side.network.name, **sizes, **performance(answer, side.data.labels)}


def _speedups(a: Side, b: Side, batch_sizes: tuple[int, ...], runtime: str) -> dict[str, Any]:
    """Time of a / time of b, in turns; only for networks that take inputs of one size."""
    if shapes(a.example) != shapes(b.example):
        return {}
    return {
        f"batch_{size}": faster(
            speedup(a.network.model, b.network.model, a.example, batch_size=size, runtime=runtime)
        )
        for size in batch_sizes
    }
