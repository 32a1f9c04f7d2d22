"""Files for other runtimes: written aside, compared with PyTorch there, renamed into place, and told of in JSON."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from penjing.core import ArtifactError, UsageError
from penjing.runtimes import Delivered, ExampleInputs, deliver_onnx, deliver_openvino, from_record, placed

SCHEMA = 1
ERROR = "max |difference| / max |PyTorch's answer| (0.01 where that is smaller), over all outputs"
_SUFFIX = {"onnx": ".onnx", "openvino": ".xml"}
_PACKAGES = ("penjing", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")
FORMATS = tuple(_SUFFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file for another runtime that gave PyTorch's answers there.

    `error` is the largest difference seen, max |difference| / max |PyTorch's answer| (0.01 where that is smaller);
    `varying` the dims of inputs that may have any size ("batch", "length"), within the limits that `notes` tell; these
    also say what is fixed that might not have been, and why. The same and more stands in `record`, a JSON file beside
    it.
    """

    path: Path
    record: Path
    error: float
    varying: tuple[str, ...]
    notes: tuple[str, ...]


def to_onnx(
    path: str | os.PathLike[str],
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    lengths: tuple[int, ...] = (),
    about: Mapping[str, Any] | None = None,
) -> Exported:
    """Writes `model` in eval mode as an ONNX file, which ends in .onnx, with a record of it beside it.

    The batch may have any size, and so may the dims `lengths` of every input ((1,) for token ids), as far as the
    network allows; what it fixes is fixed in the file, and `notes` say why. The file is run in ONNX Runtime on
    `example_inputs` and on other sizes, and its answers are compared with PyTorch's, before it gets its name. `about`
    (labels, preprocessing: plain JSON) goes into file and record. The network is left as it was.
    Raises UsageError where the network cannot be written, answers otherwise there, or a package is missing.
    """
    return _exported("onnx", deliver_onnx, path, model, example_inputs, lengths, about or {})


def to_openvino(
    path: str | os.PathLike[str],
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    lengths: tuple[int, ...] = (),
    about: Mapping[str, Any] | None = None,
) -> Exported:
    """As `to_onnx`, for OpenVINO: a file that ends in .xml, its weights in a .bin beside it, compared in OpenVINO."""
    return _exported("openvino", deliver_openvino, path, model, example_inputs, lengths, about or {})


def open_exported(path: str | os.PathLike[str]) -> nn.Module:
    """The file that `to_onnx` or `to_openvino` wrote, in its own runtime, called like the network it was made from.

    Raises ArtifactError where it, or the record beside it, is missing or is not what was written.
    """
    file = Path(path)
    record = exported_record(file)
    for name, digest in record["sha256"].items():
        if not (file.parent / name).is_file() or _sha256(file.parent / name) != digest:
            raise ArtifactError(f"{file.parent / name} is missing or altered. Fix: export the network again")
    return from_record(file, record)


def exported_record(path: Path) -> dict[str, Any]:
    """What the record beside an exported file says; raises ArtifactError where it cannot be read."""
    place = path.with_name(f"{path.name}.json")
    try:
        record = json.loads(place.read_text(encoding="utf-8"))
        _ = record["sha256"].items(), record["inputs"][0]["dims"], record["outputs"][0]["name"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{place} is missing or altered ({error}). Fix: export the network again"
        ) from None
    return record


def _exported(
    form: str,
    deliver: Callable[..., Delivered],
    path: str | os.PathLike[str],
    model: nn.Module,
    example_inputs: ExampleInputs,
    lengths: tuple[int, ...],
    about: Mapping[str, Any],
) -> Exported:
    target = _target(path, form)
    if not isinstance(model, nn.Module):
        raise UsageError(f"model must be a network (nn.Module), not {type(model).__name__}")
    if unnamed := [key for key in about if not isinstance(key, str)]:
        raise UsageError(f"about must have names as its keys, not {unnamed[0]!r}")
    metadata = {key: _plain(value) for key, value in about.items() if value is not None}
    with _aside(target.parent) as folder:
        found = deliver(
            placed(model, "cpu"), example_inputs, folder / target.name, lengths=lengths, metadata=metadata
        )
        record = _record(form, found, about)
        (folder / f"{target.name}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return Exported(
        path=target,
        record=target.with_name(f"{target.name}.json"),
        error=found.error,
        varying=found.varying,
        notes=found.notes,
    )


def _target(path: str | os.PathLike[str], form: str) -> Path:
    try:
        target = Path(path)
    except TypeError:
        raise UsageError(f"path={path!r} must be a file's name") from None
    if target.suffix != _SUFFIX[form]:
        raise UsageError(f"{target} is to be a file for {form}: give a name that ends in {_SUFFIX[form]}")
    if target.is_dir():
        raise UsageError(f"{target} is a folder: give the name of a file")
    return target


def _plain(value: Any) -> str:
    try:
        return value if isinstance(value, str) else json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"what is told about an exported network must be plain JSON: {error}") from error


def _record(form: str, found: Delivered, about: Mapping[str, Any]) -> dict[str, Any]:
    files = sorted(file for file in found.path.parent.iterdir() if file.is_file())
    return {
        "schema_version": SCHEMA,
        "format": form,
        "file": found.path.name,
        "sha256": {file.name: _sha256(file) for file in files},
        "inputs": [_described(name, *one) for name, one in found.inputs.items()],
        "outputs": [_described(name, *one) for name, one in found.outputs.items()],
        "varying": list(found.varying),
        "error": found.error,
        "error_is": ERROR,
        "limits": {what: list(ends) for what, ends in found.limits.items()},
        "compared_with": dict(found.settings),
        "checks": [{"shapes": check.shapes, "error": check.error} for check in found.checks],
        "notes": list(found.notes),
        "opset": found.opset,
        "about": dict(about),
        "versions": _versions(),
    }


def _described(name: str, dtype: str, dims: tuple[int | str, ...]) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "dims": list(dims)}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` whose files are synced and renamed into it at a clean end, the record last."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = tempfile.TemporaryDirectory(prefix=".export-", dir=folder)
    except OSError as error:
        raise UsageError(
            f"nothing can be written to {folder}: {error.strerror}. Fix: name another folder"
        ) from None
    with aside as made:
        yield Path(made)
        for file in sorted(Path(made).iterdir(), key=lambda file: (file.suffix == ".json", file.name)):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(file, folder / file.name)
