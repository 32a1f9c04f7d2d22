"""The save step: the slim network as an artifact that opens by itself."""

from pathlib import Path
from typing import Any

from penjing.core import reads_to_json
from penjing.export import save
from penjing.pipeline._files import read_json
from penjing.pipeline._job import Job


def save_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes model/, with the measured figures in its card."""
    source = job.inputs.source(weights="none", num_classes=job.inputs.classes)
    save(
        out / "model",
        job.slim("recover", "prune").cpu(),
        job.plan("prune"),
        source=source.source,
        source_args=dict(source.args),
        task=job.recipe.task,
        labels=job.inputs.data.labels,
        preprocessing=reads_to_json(job.inputs.reads),
        figures=read_json(job.run.path / "metrics.json"),
    )
