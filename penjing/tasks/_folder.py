"""A folder of class folders: FOLDER/cat/1.png; or of parts that hold them: FOLDER/train/cat/1.png."""

from collections.abc import Mapping
from pathlib import Path

from penjing.core import DataError, clean
from penjing.tasks._columns import CALLED, Columns, Kind
from penjing.tasks._examples import Example, Examples, gather
from penjing.tasks._sound_files import SOUND_SUFFIXES
from penjing.tasks._splits import PARTS
from penjing.tasks._table import table

SUFFIXES: Mapping[Kind, frozenset[str]] = {
    "pictures": frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"))
    | frozenset((".ppm", ".pgm", ".pbm", ".jfif", ".avif")),
    "texts": frozenset((".txt",)),
    "words": frozenset(),
    "sounds": SOUND_SUFFIXES,
    "speech": SOUND_SUFFIXES,
}
TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet", "transcripts.csv")


def folder(path: Path, kind: Kind, columns: Columns) -> Examples:
    """Files by class folder, deeper folders included; hidden and other files are passed over.

    A folder whose subfolders are all named like parts (train, val, test, ...) keeps these parts. Texts are .txt files
    of UTF-8. A folder with a table in it (metadata.csv) is that table; transcripts of speech and tags of words need
    one, or for speech a .txt beside every clip. Raises DataError, UsageError.
    """
    within = next((path / name for name in TABLES if (path / name).is_file()), None)
    if within is not None:
        return table(within, kind, columns)
    columns.refuse_any(str(path), f"has no table ({TABLES[0]}) whose columns could be named")
    if kind == "words":
        raise DataError(f"{clean(path)} has no table of words and tags. Fix: put {TABLES[0]} into it")
    if kind == "speech":
        return _transcribed(path)
    below, layout = _folders(path), f"FOLDER/CLASS/file{sorted(SUFFIXES[kind])[0]}"
    if not below:
        raise DataError(
            f"{clean(path)} has no class folders in it. Fix: put the {CALLED[kind]} into {layout}"
        )
    parts = {part.name.lower() for part in below}
    if parts <= PARTS.keys() and len(parts) > 1 and parts & {"train", "training"}:
        examples = [e for part in below for e in _classes(path, part, part.name.lower(), kind)]
    else:
        examples = _classes(path, path, None, kind)
    kinds = ", ".join(sorted(SUFFIXES[kind]))
    empty = f"{clean(path)} holds no {CALLED[kind]}. Fix: {layout}, of a kind in {kinds}"
    return gather(path.name, str(path), examples, empty)


def _classes(root: Path, parent: Path, part: str | None, kind: Kind) -> list[Example]:
    found = []
    for below in _folders(parent):
        files = _files(below, kind)
        if not files:
            raise DataError(
                f"Class folder {clean(below)} holds no {CALLED[kind]}: too few examples of class {below.name!r} (0). "
                f"Fix: add {CALLED[kind]}, or remove the folder"
            )
        for file in files:
            content = _text(file) if kind == "texts" else file
            found.append(Example(content, below.name, file.relative_to(root).as_posix(), part))
    return found


def _transcribed(path: Path) -> Examples:
    """Clips with their transcripts in .txt files of the same names."""
    found = []
    for file in _files(path, "speech"):
        beside = file.with_suffix(".txt")
        if not beside.is_file():
            raise DataError(
                f"{clean(file)} has no transcript {beside.name} beside it. Fix: write one, or put a table "
                f"{TABLES[0]} with the columns file_name and transcript into {clean(path)}"
            )
        found.append(Example(file, _text(beside).strip(), file.relative_to(path).as_posix()))
    kinds = ", ".join(sorted(SOUND_SUFFIXES))
    return gather(
        path.name, str(path), found, f"{clean(path)} holds no clips. Fix: give clips of a kind in {kinds}"
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{clean(file)} cannot be read: {error}. Fix: give UTF-8 text") from error


def _files(below: Path, kind: Kind) -> list[Path]:
    suffixes = SUFFIXES[kind]
    found = (p for p in below.rglob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return sorted((p for p in found if p.is_file()), key=lambda p: p.relative_to(below).as_posix())


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))
