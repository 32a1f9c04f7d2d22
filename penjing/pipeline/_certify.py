"""What finished runs handed over, certified anew: on their own examples, or on others that they have not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from penjing.certify import check_limits, in_order
from penjing.core import CertifyOptions, DataError, Margin, RunError, UsageError
from penjing.pipeline._deliver import SEEN
from penjing.pipeline._events import silent
from penjing.pipeline._figures import SPLIT
from penjing.pipeline._files import write_json
from penjing.pipeline._handed import Handed, handed
from penjing.pipeline._heldout import everything, other_classes, split_as
from penjing.pipeline._job import Inputs, Job
from penjing.pipeline._looks import looks, told
from penjing.pipeline._open import stored_alphabet
from penjing.pipeline._proof import Asked, Proof, prove
from penjing.pipeline._run import reopen, stored_recipe
from penjing.pipeline._settle import settled
from penjing.recover import evaluate
from penjing.tasks import LabelledData, task_for

FOLDER = "certificates"


def certify_runs(
    runs: Sequence[str],
    *,
    margin: float,
    data: str | None = None,
    alpha: float = 0.05,
    trust: bool = False,
    model: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Certificates by run, as certificate.json holds them, with "notes": the files that were handed over against the
    networks before compression. `margin` is in points.

    Without `data` (or with the run's own) the examples are its certification split; of other data all, and none of them
    may be one that the run learnt from. Several runs are one family: the largest file is tested first, and none after
    the first that is not certified. Each certificate is kept in the run's certificates/.
    Raises RunError for a folder without a finished run, DataError for data that overlaps, UsageError.
    """
    check_limits(margin / 100, alpha)
    options = CertifyOptions(alpha=alpha)
    claims = [_claim(run, data, trust=trust, model=model) for run in runs]
    names = [str(claim.folder) for claim in claims]
    if len({claim.folder.resolve() for claim in claims}) < len(names):
        raise UsageError(f"a run is named twice: {', '.join(names)}")
    ordered = sorted(claims, key=lambda claim: -(claim.folder / claim.file.path).stat().st_size)
    found: dict[str, Proof] = {}

    def test(claim: Claim) -> Any:
        found[str(claim.folder)] = proof = claim.prove(Margin(points=margin), options)
        return proof.certificate

    verdicts = in_order((str(claim.folder), lambda claim=claim: test(claim)) for claim in ordered)
    return {
        str(claim.folder): _kept(claim, found[str(claim.folder)], verdicts[str(claim.folder)].to_dict())
        for claim in ordered
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run's file, and the examples it is to be certified on; `own` where they are its certification split."""

    folder: Path
    job: Job
    file: Handed
    data: LabelledData
    own: bool
    notes: tuple[str, ...]

    @property
    def marks(self) -> dict[str, str]:
        return {"data_fingerprint": self.data.certification.fingerprint, "file_fingerprint": self.file.sha256}

    def prove(self, margin: Margin, options: CertifyOptions) -> Proof:
        inputs = self.job.inputs
        recipe, clock = inputs.recipe, inputs.clock
        task = task_for(recipe.task, self.data, beam=recipe.beam, clock=clock)
        left, right = (
            evaluate(network, task, self.data, SPLIT)
            for network in (self.job.full(self.job.reference), self.file.model)
        )
        asked = Asked(
            task=task,
            data=self.data,
            reads=inputs.reads,
            reference=left,
            candidate=right,
            margin=margin.fraction,
            options=options,
            seed=recipe.seed,
        )
        return prove(asked, **self.marks)


def _claim(run: str, data: str | None, *, trust: bool, model: str | None) -> Claim:
    folder = Path(run)
    if not (folder / "run.json").exists():
        raise RunError(
            f"{folder} holds no run: a certificate compares a run's network with the one before compression. "
            "Fix: name a run's folder (--out of penjing shape)"
        )
    recipe = stored_recipe(folder)
    recipe = recipe if model is None else recipe.model_copy(update={"model": model})
    inputs = Inputs(recipe=settled(recipe), trust=trust)
    opened = reopen(folder, recipe)
    if not opened.finished:
        raise RunError(f"{folder} holds a run that has not finished. Go on with --resume.")
    source, alphabet = data or recipe.data.source, stored_alphabet(run) or None
    own = split_as(folder, source, inputs.reads, alphabet)
    examples = own or everything(recipe.task, source, inputs.reads, alphabet)
    notes = () if own else _checked(folder, examples, inputs, source)
    file = handed(folder, recipe.runtime, trust=trust, original=recipe.model)
    job = Job(run=opened, inputs=inputs, listen=silent)
    return Claim(folder=folder, job=job, file=file, data=examples, own=own is not None, notes=notes)


def _checked(folder: Path, data: LabelledData, inputs: Inputs, source: str) -> tuple[str, ...]:
    """Remarks on examples that the run did not bring itself.

    Raises DataError where it learnt from some of them, UsageError where their classes are others.
    """
    known = inputs.data.labels if inputs.recipe.task != "speech-recognition" else data.labels
    if data.labels != known:
        raise UsageError(f"{source} {other_classes(data.labels, known)}")
    seen, own = _seen(folder), data.marks(SPLIT)
    learnt = np.isin(own, np.concatenate([seen["train"], seen["selection"]])).any(1)
    if learnt.any():
        first = [data.names[data.certification.indices[i]] for i in np.flatnonzero(learnt)[:3]]
        raise DataError(
            f"{int(learnt.sum())} of the {len(own)} examples of {source} are among those that {folder} learnt from "
            f"({', '.join(first)}): they cannot certify it. Fix: leave them out, or give fresh examples"
        )
    again = int(np.isin(own, seen["certification"]).any(1).sum())
    return (f"{again} of {len(own)} examples are of the run's own certification split",) if again else ()


def _seen(folder: Path) -> Mapping[str, np.ndarray]:
    try:
        return {name: marks.reshape(len(marks), -1) for name, marks in load_file(folder / SEEN).items()}
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"{folder / SEEN} is missing or altered: {error}. Shape the run anew to certify it"
        ) from None


def _kept(claim: Claim, proof: Proof, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept in the run, with the remarks that depend on this machine's history."""
    found = {"schema_version": 1, **proof.to_dict(), **verdict, "file": claim.file.to_dict()}
    found |= {"data": claim.data.name, "split": SPLIT if claim.own else "all"}
    limits = f"margin-{100 * proof.certificate.margin:g}-alpha-{proof.certificate.alpha:g}"
    place = claim.folder / FOLDER / f"{claim.marks['data_fingerprint'][:16]}-{limits}.json"
    place.parent.mkdir(exist_ok=True)
    write_json(place, found)
    others = told(looks(**claim.marks))
    return found | {"notes": [*claim.notes, *([others] if others else [])], "path": str(place)}
