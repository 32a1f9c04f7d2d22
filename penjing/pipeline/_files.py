"""Files that are whole or not there: written aside, synced, renamed, and remembered by checksum."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penjing.core import RunError

SEAL = "sha256_of_the_rest"
_FULL = re.compile(r"no space left|disk quota exceeded|os error (28|122)\b", re.IGNORECASE)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step: after a crash it holds the old bytes or the new ones."""
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:
    write(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is torn, altered or unreadable: {error}. Start again in another folder (--out)."
        ) from None


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """`write_json` with a checksum of the rest as a field of its own."""
    write_json(path, {**value, SEAL: _seal(value)})


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote, without its checksum; anything else is a `RunError` with the file's name."""
    value = read_json(path)
    found = value.pop(SEAL, None) if isinstance(value, dict) else None
    if found is None or found != _seal(value):
        raise RunError(
            f"{path} is torn or altered (its content does not fit its own checksum). "
            "Start again in another folder (--out)."
        )
    return value


def _seal(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(staging: Path, target: Path) -> tuple[str, ...]:
    """Syncs every file under `staging`, renames it to its place under `target`, returns the names."""
    names = sorted(str(path.relative_to(staging)) for path in staging.rglob("*") if path.is_file())
    for name in names:
        sync(staging / name)
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, place)
    for folder in {(target / name).parent for name in names} | {target}:
        sync(folder)
    return tuple(names)


def check_place(path: Path) -> None:
    """Raises `OSError` where the folder `path` could not be made or written."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turns a run folder that cannot be made or written into a `RunError` with the way out."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        why = error.strerror or str(error)
        raise RunError(
            f"The run folder {path} cannot be written: {why}. "
            "Choose a folder that you may write with --out, for example --out runs/mine."
        ) from error


@contextmanager
def room_left(doing: str, path: Path, again: str) -> Iterator[None]:
    """Turns 'no space left', from Python or a native writer, into a `RunError` that says how to go on: by `again`."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if not full and not _FULL.search(str(error)):
            raise
        raise RunError(
            f"No space left on the device of {path} during {doing}. Everything before it is kept: "
            f"free some space, then run: {again}"
        ) from error
