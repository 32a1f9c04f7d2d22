"""The save step: the slim network as an artifact that opens by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.core import Reads, Texts, reads_to_json
from penjing.export import TOKENIZER, save
from penjing.pipeline._files import read_json
from penjing.pipeline._job import Job
from penjing.tasks import save_tokenizer


def save_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes model/, with the measured figures in its card, and the tokenizer where the network reads texts."""
    source = job.inputs.source(weights="none", num_classes=job.inputs.classes)
    save(
        out / "model",
        job.slim("recover", "prune").cpu(),
        job.plan("prune"),
        source=source.source,
        source_args=dict(source.args),
        task=job.recipe.task,
        labels=job.inputs.data.labels,
        preprocessing=reads_to_json(_with_tokenizer(job.inputs.reads, out / "model")),
        figures=read_json(job.run.path / "metrics.json"),
    )


def _with_tokenizer(reads: Reads, artifact: Path) -> Reads:
    """`reads` with a copy of its tokenizer in `artifact`."""
    if not isinstance(reads, Texts):
        return reads
    save_tokenizer(reads, artifact / TOKENIZER)
    return replace(reads, tokenizer=TOKENIZER)
