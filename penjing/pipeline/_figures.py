"""The measure step: every network's figures, the speed-up, and the only look at the certification split."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing.core import UsageError
from penjing.measure import Complexity, block_times, blocks_of, measure, measure_zeros, speedup
from penjing.pipeline._adjust import adjust_notes
from penjing.pipeline._against import against, winner
from penjing.pipeline._files import read_json, write_json
from penjing.pipeline._fold import STEP as FOLD
from penjing.pipeline._fold import deployed, fold_notes
from penjing.pipeline._job import Job
from penjing.pipeline._scalability import scalability
from penjing.pipeline._settle import chooses, folds, seeds_of
from penjing.pipeline._shrink import trim_notes
from penjing.pipeline._smaller import NAME as SMALLER
from penjing.pipeline._smaller import about_rival, rival, why_no_rival
from penjing.pipeline._times import faster, milliseconds
from penjing.pipeline._tune import trials_in
from penjing.recover import evaluate
from penjing.tasks import headline

SPLIT = "certification"


def measure_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes metrics.json and predictions.parquet."""
    options = job.recipe.steps.measure
    rows, answers = [], {}
    for index, (name, model) in enumerate(_networks(job)):
        job.progress("measure")(name, index, 7, {})
        found = measure(
            model,
            job.inputs.example(1),
            job.recipe.runtime,
            batch_size=options.batch_sizes[0],
            repeats=options.repeats,
        )
        row = {"name": name, **complexity(found)}
        if name == "base" and not _knows(job):
            row |= {"accuracy": None, "macro_recall": None, "per_class": None}
        else:
            answers[name] = evaluate(model, job.inputs.task(), job.inputs.data, SPLIT, 256)
            row |= performance(answers[name], job.inputs.data.labels)
        row |= about_rival(job) if name == SMALLER else {}
        rows.append(row)
    reference = "distilled" if job.recipe.teacher else "transferred"
    _relate(rows, reference)
    slim = next(row for row in rows if row["name"] == "slim")
    slim["speedup"] = _speedups(job)
    _compare_controls(job, rows, slim, answers)
    metrics = _metrics(job, rows, reference) | scalability(job)
    if job.recipe.steps.tune.on:
        metrics["tuned"] = trials_in(job.run.path)
    metrics["blocks"] = _blocks(job)
    if job.recipe.seeds > 1:
        metrics["seeds"] = _seeds(job)
    if job.recipe.steps.sparsify.on:
        metrics["sparsity"] = _sparsity(job)
    write_json(out / "metrics.json", metrics)
    _predictions(out / "predictions.parquet", job, answers[reference], answers["slim"])
    figures["accuracy"] = {row["name"]: row["accuracy"] for row in rows}


def _networks(job: Job) -> Iterator[tuple[str, nn.Module]]:
    """Row names and networks, one at a time in memory."""
    yield "base", _base(job)
    yield "transferred", job.full("transfer")
    if job.recipe.teacher:
        yield "distilled", job.full("distil")
    yield "slim", job.final()
    yield from _controls(job)


def _controls(job: Job) -> Iterator[tuple[str, nn.Module]]:
    smaller = rival(job)
    if smaller is not None:
        yield SMALLER, deployed(job.inputs, smaller)
    if job.recipe.steps.controls.scratch:
        yield "control:scratch", deployed(job.inputs, job.slim("control:scratch", "prune"))
    if job.recipe.steps.controls.random:
        yield "control:random", deployed(job.inputs, job.slim("control:random", "control:random"))


def _compare_controls(
    job: Job, rows: list[dict[str, Any]], slim: Mapping[str, Any], answers: Mapping[str, Any]
) -> None:
    """Every control's row says how it does against the slim network, timed in turns."""
    options, network, example = job.recipe.steps.measure, job.final(), job.inputs.example(1)
    named = {row["name"]: row for row in rows}
    for name, control in _controls(job):
        size, rounds = options.batch_sizes[0], options.rounds
        timed = faster(
            speedup(network, control, example, batch_size=size, rounds=rounds, runtime=job.recipe.runtime)
        )
        pair = {"control": answers[name], "slim": answers["slim"]}
        named[name]["against_slim"] = against(job.inputs.task(), named[name], slim, pair, timed)


def _knows(job: Job) -> bool:
    """Whether the network came with a head for the data's labels."""
    return bool(job.run.record("base")["figures"].get("head_kept"))


def _base(job: Job) -> nn.Module:
    """The network as it came; only one with a head for the data needs its values here."""
    if _knows(job):
        return job.inputs.fresh(job.recipe.weights)
    return job.inputs.source(weights="none").model.to(job.recipe.device)


def complexity(found: Complexity) -> dict[str, Any]:
    """A row's sizes, latency and memory."""
    latency, memory = found.latency, found.peak_memory
    return {
        "params": found.params,
        "macs": found.macs,
        "size_bytes": found.size_bytes,
        "latency_ms": latency and milliseconds(latency),
        "peak_memory": memory and {"bytes": int(memory.value), "batch_size": memory.batch_size},
    }


def performance(answer: Mapping[str, Any], labels: tuple[str, ...]) -> dict[str, Any]:
    """A row's loss and metrics of the task (accuracy, macro recall, F1, word error rate: those that it has, as
    fractions), and recall (or F1) by class, None for one not met.
    """
    found = answer.get("per_class")
    if isinstance(found, tuple):
        found = dict(zip(labels, found, strict=True))
    per_class = found and {name: None if math.isnan(value) else value for name, value in found.items()}
    scalars = {key: float(value) for key, value in answer.items() if isinstance(value, int | float)}
    return {"macro_recall": None} | scalars | {"per_class": per_class}


def same(left: Any, right: Any) -> torch.Tensor:
    """Per example whether two answers (class numbers, or sequences) are equal, bool [n]."""
    if isinstance(left, torch.Tensor):
        return left == right
    return torch.tensor([a == b for a, b in zip(left, right, strict=True)])


def _relate(rows: list[dict[str, Any]], reference: str) -> None:
    whole = next(row for row in rows if row["name"] == reference)
    for row in rows:
        for key in ("params", "macs"):
            row[f"{key}_ratio"] = row[key] / whole[key]


def _speedups(job: Job) -> dict[str, Any]:
    """Reference (a) against slim (b) in turns, at every batch size of the recipe."""
    return _in_turns(job, job.full(job.reference), job.final())


def _in_turns(job: Job, a: nn.Module, b: nn.Module) -> dict[str, Any]:
    """How many times faster `b` is than `a` in the recipe's runtime, at each of its batch sizes."""
    options, example, runtime = job.recipe.steps.measure, job.inputs.example(1), job.recipe.runtime
    return {
        f"batch_{size}": faster(
            speedup(a, b, example, batch_size=size, rounds=options.rounds, runtime=runtime)
        )
        for size in options.batch_sizes
    }


def _blocks(job: Job) -> dict[str, Any]:
    """Milliseconds by block of the reference and of the slim network, in the ordinary runtime."""
    size = job.recipe.steps.measure.batch_sizes[0]
    whole, example = job.full(job.reference), job.inputs.example(size)
    names = blocks_of(whole)
    before, after = (block_times(model, example, names) for model in (whole, job.final()))
    rows = [
        {"module": name, "reference": before[name], "slim": after.get(name)}
        for name in names
        if name in before
    ]
    return {"batch_size": size, "reference": before[""], "slim": after[""], "blocks": rows}


def _seeds(job: Job) -> dict[str, Any]:
    """The headline metric after the last recovery with every seed, the run's own first, and their standard
    deviation."""
    name, data = headline(job.inputs.task())[0], job.inputs.data
    steps = ("recover", *seeds_of(job.recipe))
    found = [float(evaluate(job.slim(step, "prune"), job.inputs.task(), data, SPLIT)[name]) for step in steps]
    return {"metric": name, "values": found, "sd": statistics.stdev(found), "range": max(found) - min(found)}


def _sparsity(job: Job) -> dict[str, Any]:
    """Zeros, sizes on disk, and run times of the same network before (a) and after (b) its weights became zero."""
    dense, sparse = deployed(job.inputs, job.slim("recover", "prune")), job.final()
    found, times = measure_zeros(sparse), _in_turns(job, dense, sparse)
    return asdict(found) | {"dense": asdict(measure_zeros(dense)) | {"by_weight": None}, "time": times}


def _folded(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of the fold step, and how many times faster it alone makes the reference."""
    whole, size = job.full(job.reference), f"batch_{job.recipe.steps.measure.batch_sizes[0]}"
    return job.run.record(FOLD)["figures"], _in_turns(job, whole, deployed(job.inputs, whole))[size]


def _metrics(job: Job, rows: list[dict[str, Any]], reference: str) -> dict[str, Any]:
    data, steps = job.inputs.data, job.recipe.steps
    notes = trim_notes(job.run.record("trim")["figures"]) if steps.trim.blocks else []
    notes += (
        adjust_notes(job.run.record("adjust")["figures"]) if steps.adjust.edits or steps.adjust.do else []
    )
    notes += [bound] if (bound := job.run.record("prune")["figures"].get("bound")) else []
    notes += [alone] if (alone := why_no_rival(job)) else []
    notes += fold_notes(*_folded(job)) if folds(job.recipe) else []
    about = {"name": data.name, "split": SPLIT, "n": data.n(SPLIT), "bad": len(data.bad)}
    return {
        "schema_version": 1,
        "task": job.recipe.task,
        "budget": job.recipe.budget,
        "margin": job.recipe.margin,
        "reference": reference,
        "headline": dict(zip(("metric", "larger_is_better"), headline(job.inputs.task()), strict=True)),
        "input_size": list(data.size),
        "data": about,
        "notes": notes,
        "winner": winner(rows),
        "rows": rows,
        **_tried(job),
    }


def _tried(job: Job) -> dict[str, Any]:
    """What the step choose tried, with the seconds that each try took."""
    if not chooses(job.run.recipe):
        return {}
    seconds = job.run.volatile.get("tried", {}).get("seconds", {})
    return {"tried": {**read_json(job.run.path / "tried.json"), "seconds": seconds}}


def _predictions(path: Path, job: Job, reference: Mapping[str, Any], slim: Mapping[str, Any]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("predictions.parquet needs pyarrow: pip install 'penjing[vision]'") from None
    columns: dict[str, Any] = {
        "example": torch.as_tensor(getattr(job.inputs.data, SPLIT).indices),
        "label": reference["targets"],
        "reference": reference["predictions"],
        "slim": slim["predictions"],
    }
    names = {"labels": json.dumps(list(job.inputs.data.labels))}
    arrays = {name: pyarrow.array(_plain(column)) for name, column in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(names), path)


def _plain(column: Any) -> Any:
    """Class numbers as an array; transcripts as texts; tags of words as lists of numbers."""
    if isinstance(column, torch.Tensor):
        return column.to(torch.int64).numpy()
    return [answer if isinstance(answer, str) else list(answer) for answer in column]
