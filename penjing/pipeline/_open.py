"""Networks as people name them: a source, a saved network, or a run."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import Pictures, Reads, RunError, Texts, UsageError, reads_from_json
from penjing.export import TOKENIZER, load, read_structure
from penjing.sources import load_source, parse_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A network ready to run, and what it expects; `labels` is None where nothing tells its classes.

    `ordered`, of a source that names its classes, gives the network with its outputs in the order of other names.
    """

    name: str
    model: nn.Module
    reads: Reads
    labels: tuple[str, ...] | None
    ordered: Callable[[tuple[str, ...]], nn.Module] | None = None

    def in_order(self, labels: tuple[str, ...]) -> "Opened":
        """This network answering in the order of `labels`, where its classes are these in another order."""
        own = self.labels or ()
        if self.ordered is None or own == labels or sorted(own) != sorted(labels):
            return self
        return replace(self, model=self.ordered(labels), labels=labels)


def open_network(
    spec: str,
    *,
    trust: bool = False,
    weights: str | None = None,
    original: str | None = None,
    task: str | None = None,
) -> Opened:
    """The slim network of a run folder, a folder that `penjing.save` wrote, or a source.

    `original` names the code (file:PATH.py:FACTORY) of the whole network where the saved one was made from code; `task`
    chooses the head of a source that has several.
    """
    artifact = artifact_of(spec)
    if artifact is None:
        own = weights == "pretrained" and parse_source(spec).runs_code  # code brings the weights it has
        given = partial(load_source, spec, weights=None if own else weights, trust_files=trust, task=task)
        source = given()
        return Opened(
            name=spec,
            model=source.model,
            reads=source.reads,
            labels=source.own_labels or None,
            ordered=lambda labels: given(labels=labels).model,
        )
    about = read_structure(artifact)
    labels = about.get("labels")
    return Opened(
        name=spec,
        model=load_artifact(artifact, about, trust=trust, original=original),
        reads=reads_of(artifact, about),
        labels=None if labels is None else tuple(labels),
    )


def task_of(spec: str) -> str | None:
    """The task that a run or a saved network was made for; None where nothing tells it."""
    artifact = artifact_of(spec)
    return None if artifact is None else read_structure(artifact).get("task")


def stored_alphabet(spec: str) -> tuple[str, ...]:
    """The symbols that a run or a saved network spells with; () for one that does not."""
    artifact = artifact_of(spec)
    about = {} if artifact is None else read_structure(artifact)
    return tuple(about.get("labels") or ()) if about.get("task") == "speech-recognition" else ()


def load_artifact(
    artifact: Path, about: Mapping[str, Any], *, trust: bool = False, original: str | None = None
) -> nn.Module:
    """The network in `artifact`, whose structure.json holds `about`."""
    if not parse_source(about["source"]).runs_code:
        return load(artifact)
    if original is None:
        raise UsageError(
            f"{artifact} was made from {about['source']}, code that a saved network may not run. "
            f"If you trust that code, name it again: --model {shlex.quote(about['source'])}"
        )
    classes = about["source_args"].get("num_classes")
    source = load_source(original, weights="none", num_classes=classes, trust_files=trust)
    return load(artifact, model=source.model)


def artifact_of(spec: str) -> Path | None:
    """The saved network that a folder is or holds; None where `spec` is no folder."""
    folder = Path(spec)
    if not folder.is_dir():
        return None
    for place in (folder, folder / "model"):
        if (place / "structure.json").exists():
            return place
    if (folder / "run.json").exists():
        raise RunError(f"{folder} holds a run without its network: it has not finished. Go on with --resume.")
    raise UsageError(f"{folder} holds neither a run nor a saved network (no structure.json).")


def reads_of(artifact: Path, about: Mapping[str, Any]) -> Reads:
    """What the saved network reads, with the tokenizer that lies beside it, where one does."""
    reads = reads_from_json(about.get("preprocessing"), f"{artifact}/structure.json")
    if isinstance(reads, Texts) and (artifact / TOKENIZER).is_dir():
        return replace(reads, tokenizer=str(artifact / TOKENIZER))
    return reads


def sized(reads: Reads, image_size: int | None, name: str) -> Reads:
    """`reads` with pictures of another size; raises `UsageError` where the network reads no pictures."""
    if image_size is None:
        return reads
    if not isinstance(reads, Pictures):
        raise UsageError(
            f"{name} reads no pictures, and an image size was asked. Fix: leave --image-size out"
        )
    return replace(reads, size=(reads.size[0], image_size, image_size))


def with_tokenizer(reads: Reads, tokenizer: str | None, name: str) -> Reads:
    """`reads` with another tokenizer; raises `UsageError` where one is asked of a network that reads no texts."""
    if tokenizer is None:
        return reads
    if not isinstance(reads, Texts):
        raise UsageError(f"{name} reads no texts, and a tokenizer was given. Fix: leave data.tokenizer out")
    return replace(reads, tokenizer=tokenizer)
