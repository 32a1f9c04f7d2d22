"""Training states on disk: one safetensors file per state, all but tensors as JSON in its header."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from penjing.core import RunError
from penjing.pipeline._files import write

State = TypeVar("State")
_SCALARS = (str, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The latest training state of one step; each file's name carries its order and its checksum."""

    folder: Path
    step: str

    def save(self, state: Any) -> None:
        """Replaces the stored state; a crash in between leaves the older one."""
        self.folder.mkdir(exist_ok=True)
        old = self._files()
        content = encode(state)
        order = int(old[-1].name.split(".")[1]) + 1 if old else 0
        digest = hashlib.sha256(content).hexdigest()[:32]
        write(self.folder / f"{self.step}.{order:06d}.{digest}.safetensors", content)
        for path in old:
            path.unlink()

    def load(self, kind: type[State]) -> State | None:
        """The stored state, None where there is none; an altered file is a `RunError` with its name."""
        files = self._files()
        if not files:
            return None
        content = files[-1].read_bytes()
        if hashlib.sha256(content).hexdigest()[:32] != files[-1].name.split(".")[2]:
            raise RunError(f"{files[-1]} is torn or altered. Delete it to repeat the step {self.step}.")
        return decode(files[-1], kind)

    def clear(self) -> None:
        for path in self._files():
            path.unlink()
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.step}.*.safetensors"))


def encode(state: Any) -> bytes:
    """A dataclass of tensors, plain values and nested dicts, lists and tuples as one safetensors file."""
    tensors: dict[str, torch.Tensor] = {}
    values = {item.name: getattr(state, item.name) for item in dataclasses.fields(state)}
    skeleton = json.dumps(_encode(values, tensors))
    return save(tensors, metadata={"state": skeleton})


def decode(path: Path, kind: type[State]) -> State:
    """The inverse of `encode`; raises `RunError` with the file's name for anything else."""
    try:
        with safe_open(path, framework="pt") as file:
            skeleton = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return kind(**_decode(skeleton, tensors))
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise RunError(f"{path} is no training state of this version: {error}") from None


def _encode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, list):
        return [_encode(item, tensors) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, tensors) for item in value]}
    if hasattr(value, "items"):
        return {"dict": [[_encode(key, tensors), _encode(item, tensors)] for key, item in value.items()]}
    raise TypeError(f"a training state holds a {type(value).__name__}, which cannot be stored without pickle")


def _decode(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    (kind, content), *_ = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
