"""The save step: the slim network as files that open by themselves, and the certificate on what is handed over."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from torch import nn

from penjing.core import Reads, Texts, reads_to_json
from penjing.export import TOKENIZER, save, write_card
from penjing.pipeline._figures import SPLIT, same
from penjing.pipeline._files import read_json, write_json
from penjing.pipeline._handed import MODEL, Handed, hand_over
from penjing.pipeline._job import Job
from penjing.pipeline._looks import looks, told
from penjing.pipeline._proof import Asked, forecast, prove
from penjing.recover import evaluate
from penjing.report import copies_told
from penjing.sources import save_uniform
from penjing.tasks import NAMES, save_tokenizer

CERTIFICATE = "certificate.json"
SEEN = "examples.safetensors"


def save_step(job: Job, out: Path, figures: dict[str, Any]) -> None:
    """Writes plan.json, model/ with the measured figures in its card and the tokenizer where the network reads texts,
    the file for the run's runtime below export/, and export/transformers/ where the network is one of transformers and
    one configuration describes the slim one. With a margin, certificate.json says what is proven of that file;
    examples.safetensors holds 64 bits of every example's content, and of what the network is given of it, by split.
    """
    slim, metrics = _saved(job, out), read_json(job.run.path / "metrics.json")
    found = hand_over(
        out, job.recipe.runtime, job.inputs.reads, trust=job.inputs.trust, original=job.recipe.model
    )
    for note in found.notes:
        job.note("save", note)
    if job.recipe.margin is not None:
        certificate = _certificate(job, found)
        write_json(out / CERTIFICATE, certificate)
        write_card(out / MODEL, slim, {**metrics, "certificate": certificate})
        figures["verdict"] = certificate["verdict"]
    _remember(job, out)
    if job.inputs.source(weights="none").source.startswith(("hf:", "builtin:minilm")):
        figures["from_pretrained"] = _for_transformers(job, job.trained().cpu(), out)


def foresee(job: Job) -> None:
    """Tells, before anything is compressed, what the certification examples will be able to show."""
    if job.recipe.margin:
        n, alpha = job.inputs.data.n(SPLIT), job.recipe.steps.certify.alpha
        job.note("base", forecast(n, job.recipe.margin / 100, alpha))


def _saved(job: Job, out: Path) -> nn.Module:
    source = job.inputs.source(weights="none", headed=True)
    (out / "plan.json").write_text(job.final_plan().to_json(), encoding="utf-8")
    slim = job.final().cpu()
    save(
        out / MODEL,
        slim,
        job.final_plan(),
        source=source.source,
        source_args=dict(source.args),
        task=job.recipe.task,
        labels=job.inputs.data.labels,
        preprocessing=reads_to_json(_with_tokenizer(job.inputs.reads, out / MODEL)),
        figures=read_json(job.run.path / "metrics.json"),
    )
    return slim


def _certificate(job: Job, file: Handed) -> dict[str, Any]:
    """What certificate.json holds: the certificate's fields, and what bears on it."""
    inputs, recipe = job.inputs, job.recipe
    assert recipe.margin is not None
    job.progress("save")("certificate", 0, 2, {})
    reference = evaluate(job.full(job.reference), inputs.task(), inputs.data, SPLIT)
    job.progress("save")("certificate", 1, 2, {})
    candidate = evaluate(file.model, inputs.task(), inputs.data, SPLIT)
    asked = Asked(
        task=inputs.task(),
        data=inputs.data,
        reads=inputs.reads,
        reference=reference,
        candidate=candidate,
        margin=recipe.margin / 100,
        options=recipe.steps.certify,
        seed=recipe.seed,
    )
    marks = {"data_fingerprint": inputs.data.certification.fingerprint, "file_fingerprint": file.sha256}
    _count(job, marks)
    proof = prove(asked, **marks)
    if proof.copies:
        job.note("save", copies_told(proof.copies, proof.certificate.n))
    network = evaluate(job.final(), inputs.task(), inputs.data, SPLIT)
    unlike = int((~same(network["predictions"], candidate["predictions"])).sum())
    about = {"file": file.to_dict(), "split": SPLIT, "unlike_pytorch": unlike}
    return {"schema_version": 1, **proof.to_dict(), **about}


def _count(job: Job, marks: Mapping[str, str]) -> None:
    """Keeps, among what differs from run to run, how often these examples have certified."""
    others = looks(marks["data_fingerprint"], marks["file_fingerprint"])
    job.run.volatile["looks"] = others
    if others:
        job.note("save", told(others))


def _remember(job: Job, out: Path) -> None:
    """What the run has seen of the data, so that examples can be told from those that it learnt from."""
    data = job.inputs.data
    save_file({name: data.marks(name) for name in NAMES}, out / SEEN)


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
