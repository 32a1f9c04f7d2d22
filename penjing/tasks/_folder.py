"""A folder of class folders: FOLDER/cat/1.png; or of parts that hold them: FOLDER/train/cat/1.png."""

from pathlib import Path

from penjing.core import DataError, clean
from penjing.tasks._examples import Example, Examples, gather
from penjing.tasks._splits import PARTS

SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".jfif",
        ".avif",
    )
)
LAYOUT = "FOLDER/CLASS/picture.png"


def folder(path: Path) -> Examples:
    """Pictures by class folder, deeper folders included; hidden and other files are passed over.

    A folder whose subfolders are all named like parts (train, val, test, ...) keeps these parts. Raises
    DataError.
    """
    below = _folders(path)
    if not below:
        raise DataError(f"{clean(path)} has no class folders in it. Fix: put the pictures into {LAYOUT}")
    parts = {part.name.lower() for part in below}
    if parts <= PARTS.keys() and len(parts) > 1 and parts & {"train", "training"}:
        examples = [e for part in below for e in _classes(path, part, part.name.lower())]
    else:
        examples = _classes(path, path, None)
    kinds = ", ".join(sorted(SUFFIXES))
    return gather(
        path.name,
        str(path),
        examples,
        f"{clean(path)} holds no pictures. Fix: {LAYOUT}, of a kind in {kinds}",
    )


def _classes(root: Path, parent: Path, part: str | None) -> list[Example]:
    found = []
    for below in _folders(parent):
        pictures = sorted(
            (
                p
                for p in below.rglob("*")
                if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
            ),
            key=lambda p: p.relative_to(below).as_posix(),
        )
        if not pictures:
            raise DataError(
                f"Class folder {clean(below)} holds no pictures: too few examples of class {below.name!r} (0). "
                "Fix: add pictures, or remove the folder"
            )
        found += [Example(p, below.name, p.relative_to(root).as_posix(), part) for p in pictures]
    return found


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
