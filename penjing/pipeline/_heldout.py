"""Which examples a finished run has not learnt from: its own certification split, found again by fingerprint."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.core import DataError, DataOptions, Reads, UsageError, clean, cut
from penjing.pipeline._job import Inputs, read_data
from penjing.pipeline._open import stored_alphabet
from penjing.pipeline._run import read_ledger, stored_recipe
from penjing.tasks import LabelledData, Split

MOST_NAMES = 8  # classes named in a message


def run_of(spec: str) -> Path | None:
    """The run folder that `spec` is, or that holds the saved network `spec`; None for anything else."""
    folder = Path(spec)
    places = (folder, folder.resolve().parent) if folder.name == "model" else (folder,)
    return next((place for place in places if (place / "run.json").exists()), None)


def split_as(
    run: Path, data: str, reads: Reads, alphabet: tuple[str, ...] | None = None
) -> LabelledData | None:
    """`data` in the splits of `run`, None where its examples are not those that the run recorded.

    Transcripts are spelt with `alphabet`, the run's own where none is given.
    """
    recorded, recipe = read_ledger(run)["inputs"], stored_recipe(run)
    try:
        options = recipe.data.model_copy(update={"source": data})
        symbols = alphabet or stored_alphabet(str(run)) or None
        found = read_data(recipe.task, options, reads, recipe.seed, alphabet=symbols)
    except (DataError, UsageError):
        return None
    parts = (found.train, found.selection, found.certification)
    same = all(recorded.get(f"{part.name} examples") == part.fingerprint for part in parts)
    return found if same else None


def everything(task: str, data: str, reads: Reads, alphabet: tuple[str, ...] | None = None) -> Any:
    """`data` with all its examples in the certification split, for networks that have not trained on it.

    Transcripts are spelt with `alphabet`; characters that it lacks are a DataError, for no answer could be right.
    """
    options = DataOptions(source=data)
    try:
        whole = options.model_copy(update={"splits": (0.0, 0.0, 1.0)})
        found: Any = read_data(task, whole, reads, 0, alphabet=alphabet)
    except DataError:  # data that brings its own parts
        found = read_data(task, options, reads, 0, alphabet=alphabet)
    indices = tuple(sorted(found.train.indices + found.selection.indices + found.certification.indices))
    empty = Split(name="", indices=(), fingerprint="")
    return replace(
        found,
        train=empty,
        selection=empty,
        certification=Split(name="certification", indices=indices, fingerprint=_fingerprint(found, indices)),
    )


def other_classes(found: Sequence[str], known: Sequence[str]) -> str:
    """In what the classes of some data are not those that a network knows, in words after the data's name."""
    lacks, more = ([one for one in a if one not in b] for a, b in ((known, found), (found, known)))
    told = [f"{what} {_some(names)}" for what, names in (("lacks", lacks), ("has besides", more)) if names]
    told = told or [f"has them in another order: {_some(found)}, in place of {_some(known)}"]
    return (
        f"has other classes than the {len(known)} of the run: it {' and '.join(told)}. Fix: give data with the run's "
        "classes, all of them"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(cut(clean(repr(name))) for name in names[:MOST_NAMES]) + more


def _fingerprint(data: LabelledData, indices: tuple[int, ...]) -> str:
    """The sha256 over the contents of these examples, in whatever order they came."""
    return hashlib.sha256(b"".join(sorted(data.digests[i].tobytes() for i in indices))).hexdigest()


def check_teacher(inputs: Inputs, spec: str) -> None:
    """Raises `UsageError` for a run as teacher that has learnt from examples which certify here."""
    run = run_of(spec)
    theirs = run and split_as(run, inputs.recipe.data.source, inputs.reads)
    if theirs and theirs.certification.fingerprint != inputs.data.certification.fingerprint:
        seed = stored_recipe(run).seed if run else 0
        raise UsageError(
            f"The teacher {spec} was trained on other splits of {inputs.recipe.data.source} (seed {seed} there, "
            f"{inputs.recipe.seed} here): it has learnt from examples that certify here. "
            f"Fix: use its seed and splits (--seed {seed}), or a teacher that has not seen this data"
        )
