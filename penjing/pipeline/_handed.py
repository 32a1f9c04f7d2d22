"""What a run hands over: the file in its own runtime, ready to answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import Reads, UsageError, reads_to_json
from penjing.export import exported_record, open_exported, read_structure, to_onnx, to_openvino
from penjing.pipeline._export import lengths_of, padded
from penjing.pipeline._files import sha256
from penjing.pipeline._open import load_artifact
from penjing.tasks import example_of

MODEL = "model"
FILES = {"onnx": "export/model.onnx", "openvino": "export/model.xml"}
_WRITERS = {"onnx": to_onnx, "openvino": to_openvino}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A file, `path` below the run folder, that answers in `runtime`; `notes` say why it is not another one."""

    path: str
    runtime: str
    sha256: str
    model: nn.Module
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"path": self.path, "runtime": self.runtime, "sha256": self.sha256}


def hand_over(
    folder: Path, runtime: str, reads: Reads, *, trust: bool = False, original: str | None = None
) -> Handed:
    """The network saved in `folder`/model, written for `runtime` where that takes files of its own.

    Where no such file can be written, or it takes texts or sounds of one length only, it is the saved network.
    """
    artifact = folder / MODEL
    about = read_structure(artifact)
    model = load_artifact(artifact, about, trust=trust, original=original).eval()
    notes: tuple[str, ...] = ()
    if runtime in FILES:
        try:
            return _exported(folder / FILES[runtime], runtime, model, reads, about)
        except UsageError as error:
            notes = (f"the saved network is certified, not a file for {runtime}: {error}",)
    weights = f"{MODEL}/model.safetensors"
    return Handed(path=weights, runtime="eager", sha256=sha256(folder / weights), model=model, notes=notes)


def handed(folder: Path, runtime: str, *, trust: bool = False, original: str | None = None) -> Handed:
    """What was handed over in `folder`; raises ArtifactError where it is missing or altered."""
    if runtime in FILES and (folder / FILES[runtime]).exists():
        file = folder / FILES[runtime]
        return Handed(path=FILES[runtime], runtime=runtime, sha256=sha256(file), model=open_exported(file))
    model = load_artifact(folder / MODEL, read_structure(folder / MODEL), trust=trust, original=original)
    weights = f"{MODEL}/model.safetensors"
    return Handed(path=weights, runtime="eager", sha256=sha256(folder / weights), model=model.eval())


def _exported(path: Path, runtime: str, model: nn.Module, reads: Reads, about: Any) -> Handed:
    lengths = lengths_of(reads)
    told = {"task": about.get("task"), "labels": about.get("labels"), "preprocessing": reads_to_json(reads)}
    found = _WRITERS[runtime](path, model, padded(example_of(reads, 2)), lengths=lengths, about=told)
    if lengths and "length" not in found.varying:
        for name in exported_record(path)["sha256"]:
            (path.parent / name).unlink()
        found.record.unlink()
        raise UsageError("in a file every input would have one length")
    name = str(Path("export") / path.name)
    return Handed(path=name, runtime=runtime, sha256=sha256(path), model=open_exported(path))
