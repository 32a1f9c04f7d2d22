"""A teacher's answers kept in memory-mapped files: computed once for each view of an example, replayed bit for bit."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core import UsageError
from penjing.recover._modules import device_of, tensors_of

ALONE = -1  # the mixup partner of an example that is not mixed
STAMP = 16
SUFFIX = ".logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherCache:
    """Where the answers of teachers are kept, and how many bytes all of them may take together.

    An entry belongs to (seed, epoch, index of the example, mixup partner) and to the very batch that its view was
    served in: its stamp covers all four, every input of the batch, the share in which its examples are mixed, and the
    logits. So a replayed entry is what the
    teacher would answer now, bit for bit, whatever else changed; an entry that a kill or a full disk tore, that
    another order, padding or batch size made, or that was altered has another stamp, counts as missing, and is
    computed anew. (Measured: rows of a batch do not depend on their order or on each other, but a batch of one or
    two takes other kernels than a batch of 16, and padding to another length changes the last bits of texts.)

    One file per view, reserved whole before its first entry. At the limit no further view is stored: the teacher then
    answers those epochs itself, and the training goes on as it would without a cache.
    """

    folder: Path
    limit: int = 2**30

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))
        if self.limit < 1:
            raise UsageError(f"The limit of a teacher cache is {self.limit} bytes; give at least 1.")

    def view_bytes(self, examples: int, classes: int, *, itemsize: int = 4) -> int:
        """What one view (one epoch) of that many examples takes on disk."""
        return examples * _record(classes * itemsize).itemsize

    def views_that_fit(self, views: int, examples: int, classes: int, *, itemsize: int = 4) -> int:
        """How many of `views` more views the limit has room for."""
        room = self.limit - self.stored_bytes()
        return max(0, min(views, room // self.view_bytes(examples, classes, itemsize=itemsize)))

    def stored_bytes(self) -> int:
        """What is stored now, of all teachers."""
        return sum(path.stat().st_size for path in self.folder.glob(f"*/*{SUFFIX}"))

    def of(self, teacher: nn.Module, **about: Any) -> "TeacherShelf":
        """The part that belongs to `teacher` as it is now; `about` is what else its answers depend on."""
        told = {**_machine(teacher), **about, "teacher": fingerprint(teacher)}
        name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
        return TeacherShelf(cache=self, path=self.folder / name, about=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherShelf:
    """One teacher's views."""

    cache: TeacherCache
    path: Path
    about: Mapping[str, Any]

    def view(self, seed: int, epoch: int, examples: Sequence[int], width: int) -> "View | None":
        """The view of `examples` in that epoch, `width` bytes each; None where the limit leaves no room for it, OSError
        where the folder cannot hold it.
        """
        order = np.unique(np.asarray(examples, dtype=np.int64))
        path = self.path / f"{seed}-{epoch}-{len(order)}-{width}{SUFFIX}"
        size = len(order) * _record(width).itemsize
        whole = path.exists() and path.stat().st_size == size
        if not whole and not self._reserve(path, size):
            return None
        return View(
            np.memmap(path, dtype=_record(width), mode="r+", shape=(len(order),)), order, (seed, epoch)
        )

    def stored_views(self, seed: int) -> int:
        """How many views of that seed are there, whole or begun."""
        return sum(1 for _ in self.path.glob(f"{seed}-*{SUFFIX}"))

    def _reserve(self, path: Path, size: int) -> bool:
        """A file of zeros that has its blocks: writing into a mapped file on a full disk would end the process."""
        if self.cache.stored_bytes() + size > self.cache.limit:
            return False
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "about.json").write_text(json.dumps(dict(self.about), indent=1), encoding="utf-8")
            with aside.open("wb") as file:
                for start in range(0, size, 2**20):
                    file.write(bytes(min(2**20, size - start)))
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        return True


class View:
    """The entries of one epoch: row i holds the answers on example order[i]."""

    def __init__(self, entries: np.memmap, order: np.ndarray, key: tuple[int, int]) -> None:
        self._entries, self._order, self._key = entries, order, key

    def read(
        self, examples: Sequence[int], inputs: bytes, partners: Sequence[int] | None = None
    ) -> bytes | None:
        """The answers on a batch whose inputs have that digest, row by row; None unless all of them are whole."""
        found = self._entries[self._rows(examples)]
        partners = partners or [ALONE] * len(examples)
        for entry, example, partner in zip(found, examples, partners, strict=True):
            stamp = self._stamp(example, partner, inputs, entry["logits"].tobytes())
            if entry["partner"] != partner or entry["stamp"].tobytes() != stamp:
                return None
        return found["logits"].tobytes()

    def write(
        self,
        examples: Sequence[int],
        inputs: bytes,
        answers: np.ndarray,
        partners: Sequence[int] | None = None,
    ) -> None:
        """Keeps the answers [batch, bytes] on that batch."""
        made = np.zeros(len(examples), dtype=self._entries.dtype)
        made["partner"], made["logits"] = partners or ALONE, answers
        stamps = [
            self._stamp(example, partner, inputs, row.tobytes())
            for example, partner, row in zip(examples, made["partner"].tolist(), answers, strict=True)
        ]
        made["stamp"] = np.frombuffer(b"".join(stamps), dtype=np.uint8).reshape(-1, STAMP)
        self._entries[self._rows(examples)] = made

    def _rows(self, examples: Sequence[int]) -> np.ndarray:
        return np.searchsorted(self._order, np.asarray(examples, dtype=np.int64))

    def _stamp(self, example: int, partner: int, inputs: bytes, answers: bytes) -> bytes:
        key = np.array([*self._key, example, partner], dtype="<i8").tobytes()
        return hashlib.blake2b(key + inputs + answers, digest_size=STAMP).digest()


def digest(inputs: Any) -> bytes:
    """sha256 of every tensor that a network is called with, by name or place, shape and dtype."""
    total = hashlib.sha256()
    for name, tensor in _parts(inputs):
        total.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(_bytes(tensor).data)
    return total.digest()


def fingerprint(model: nn.Module) -> str:
    """sha256 of every parameter and buffer."""
    return digest(tensors_of(model)).hex()


def as_rows(logits: Tensor) -> np.ndarray:
    """Logits [n, classes] as bytes [n, width]."""
    return _bytes(logits).reshape(len(logits), -1)


def as_logits(answers: bytes, examples: int, dtype: torch.dtype) -> Tensor:
    """The logits [n, classes] that `as_rows` took apart."""
    return torch.frombuffer(bytearray(answers), dtype=dtype).view(examples, -1)


def _parts(inputs: Any) -> Iterator[tuple[str, Tensor]]:
    named = (
        inputs.items()
        if isinstance(inputs, Mapping)
        else enumerate(inputs if isinstance(inputs, tuple | list) else [inputs])
    )
    for name, part in named:
        if isinstance(part, Tensor):
            yield str(name), part


def _bytes(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _record(width: int) -> np.dtype:
    return np.dtype([("stamp", "u1", (STAMP,)), ("partner", "<i8"), ("logits", "u1", (width,))])


def _machine(teacher: nn.Module) -> dict[str, Any]:
    """What decides which kernels run, and so the last bits."""
    device = device_of(teacher)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else torch.backends.cpu.get_cpu_capability()
    )
    return {
        "class": f"{type(teacher).__module__}.{type(teacher).__qualname__}",
        "torch": str(torch.__version__),
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
    }
