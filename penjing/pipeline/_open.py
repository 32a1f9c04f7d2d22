"""Networks as people name them: a source, a saved network, or a run."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import ArtifactError, RunError, UsageError
from penjing.export import load, read_structure
from penjing.sources import load_source, parse_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the network expects of a picture: size (C, H, W) and normalisation per channel."""

    size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A network ready to run, and what it expects; `labels` is None where nothing tells its classes."""

    name: str
    model: nn.Module
    frame: Frame
    labels: tuple[str, ...] | None


def open_network(
    spec: str, *, trust: bool = False, weights: str | None = None, original: str | None = None
) -> Opened:
    """The slim network of a run folder, a folder that `penjing.save` wrote, or a source.

    `original` names the code (file:PATH.py:FACTORY) of the whole network where the saved one was made from code.
    """
    artifact = artifact_of(spec)
    if artifact is None:
        own = weights == "pretrained" and parse_source(spec).runs_code  # code brings the weights it has
        source = load_source(spec, weights=None if own else weights, trust_files=trust)
        frame = Frame(size=source.input_size, mean=source.mean, std=source.std)
        return Opened(name=spec, model=source.model, frame=frame, labels=None)
    about = read_structure(artifact)
    labels = about.get("labels")
    return Opened(
        name=spec,
        model=load_artifact(artifact, about, trust=trust, original=original),
        frame=_frame(about.get("preprocessing"), artifact),
        labels=None if labels is None else tuple(labels),
    )


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


def _frame(found: Any, artifact: Path) -> Frame:
    try:
        channels, height, width = found["input_size"]
        mean, std = tuple(map(float, found["mean"])), tuple(map(float, found["std"]))
        return Frame(size=(int(channels), int(height), int(width)), mean=mean, std=std)
    except (TypeError, KeyError, ValueError):
        raise ArtifactError(
            f"{artifact}/structure.json does not say what inputs the network expects: save it with "
            "preprocessing={'input_size': ..., 'mean': ..., 'std': ...}."
        ) from None
