"""The save step: the slim network as an artifact that opens by itself, and for transformers where that is possible."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import Reads, Texts, reads_to_json
from penjing.export import TOKENIZER, save
from penjing.pipeline._files import read_json
from penjing.pipeline._job import Job
from penjing.sources import save_uniform
from penjing.tasks import save_tokenizer


def save_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes plan.json, model/ with the measured figures in its card and the tokenizer where the network reads texts,
    and export/transformers/ where the network is one of transformers and one configuration describes the slim one.
    """
    source = job.inputs.source(weights="none", headed=True)
    (out / "plan.json").write_text(job.final_plan().to_json(), encoding="utf-8")
    slim = job.final().cpu()
    save(
        out / "model",
        slim,
        job.final_plan(),
        source=source.source,
        source_args=dict(source.args),
        task=job.recipe.task,
        labels=job.inputs.data.labels,
        preprocessing=reads_to_json(_with_tokenizer(job.inputs.reads, out / "model")),
        figures=read_json(job.run.path / "metrics.json"),
    )
    if source.source.startswith(("hf:", "builtin:minilm")):
        figures["from_pretrained"] = _for_transformers(job, job.trained().cpu(), out)


def _for_transformers(job: Job, slim: nn.Module, out: Path) -> str:
    """Where from_pretrained finds the slim network, or why it cannot."""
    place = Path("export") / "transformers"
    (out / place).parent.mkdir(parents=True, exist_ok=True)
    reason = save_uniform(out / place, job.full(job.reference).cpu(), slim, job.inputs.data.example(2))
    if reason is not None:
        return f"not written: {reason}"
    if isinstance(job.inputs.reads, Texts):
        save_tokenizer(job.inputs.reads, out / place)
    return str(place)


def _with_tokenizer(reads: Reads, artifact: Path) -> Reads:
    """`reads` with a copy of its tokenizer in `artifact`."""
    if not isinstance(reads, Texts):
        return reads
    save_tokenizer(reads, artifact / TOKENIZER)
    return replace(reads, tokenizer=TOKENIZER)
