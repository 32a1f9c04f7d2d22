"""A CSV, JSONL or Parquet file with one row per picture."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penjing.core import DataError, clean
from penjing.tasks._examples import Example, Examples, Picture, gather
from penjing.tasks._require import require
from penjing.tasks._splits import PARTS

PATH_COLUMNS = ("path", "file", "image", "file_name", "filename", "filepath", "image_path")
LABEL_COLUMNS = ("label", "class", "target", "category", "label_name")
SPLIT_COLUMN = "split"
SUFFIXES = (".csv", ".jsonl", ".parquet")
Row = Mapping[str, Any]


def table(path: Path, path_column: str | None, label_column: str | None) -> Examples:
    """One example per row of `path`.

    The columns of pictures and labels are found by their usual names (PATH_COLUMNS, LABEL_COLUMNS) unless
    given. A relative path is relative to the file's own folder; a Parquet cell may also hold an encoded
    picture's bytes. A column `split` with train, val or test assigns parts. Raises DataError that names
    columns or the row.
    """
    rows, columns = _read(path)
    picture = _column(
        path, columns, path_column, PATH_COLUMNS, "picture paths", "path_column (--path-column)"
    )
    label = _column(path, columns, label_column, LABEL_COLUMNS, "labels", "label_column (--label-column)")
    split = SPLIT_COLUMN if SPLIT_COLUMN in columns else None
    examples = [_example(path, n, row, picture, label, split) for n, row in enumerate(rows, start=1)]
    return gather(path.stem, str(path), examples, f"{path} has no rows. Fix: give one row per picture")


def _example(path: Path, number: int, row: Row, picture: str, label: str, split: str | None) -> Example:
    where = f"row {number} of {path}"
    name, value = row.get(picture), row.get(label)
    if name in (None, "") or value is None or str(value).strip() == "":
        empty = picture if name in (None, "") else label
        raise DataError(f"Column {empty!r} is empty in {where}. Fix: fill it in, or remove the row")
    part = None
    if split is not None:
        part = str(row.get(split) or "").strip().lower()
        if part not in PARTS:
            raise DataError(
                f"Column 'split' is {row.get(split)!r} in {where}. Fix: use one of {', '.join(PARTS)}"
            )
    found, shown = _picture(path, name)
    return Example(
        picture=found,
        label=str(value).strip(),
        name=clean(f"{shown} ({where})" if shown else where),
        part=part,
    )


def _picture(path: Path, cell: Any) -> tuple[Picture, str]:
    """A cell's picture: bytes, a path relative to the file's folder, or Hugging Face's {bytes, path}."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path") or ""
    if isinstance(cell, bytes):
        return cell, ""
    return path.parent / str(cell), str(cell)


def _column(
    path: Path, columns: Sequence[str], asked: str | None, usual: Sequence[str], what: str, option: str
) -> str:
    if asked is not None and asked in columns:
        return asked
    lower = {column.lower().strip(): column for column in reversed(columns)}
    found = None if asked is not None else next((lower[name] for name in usual if name in lower), None)
    if found is None:
        sought = repr(asked) if asked is not None else f"of {what} (one of {', '.join(usual)})"
        raise DataError(
            f"{clean(path)} has no column {sought}. Its columns: {clean(', '.join(columns)) or 'none'}. "
            f"Fix: name it with {option}"
        )
    return found


def _read(path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path)
        return _read_jsonl(path) if path.suffix.lower() == ".jsonl" else _read_parquet(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}. Fix: give a UTF-8 {path.suffix} file") from error


def _read_csv(path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        return list(reader), tuple(reader.fieldnames or ())


def _read_jsonl(path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(
                f"Line {number} of {path} is not JSON: {error}. Fix: one object a line"
            ) from error
        if not isinstance(row, dict):
            raise DataError(f"Line {number} of {path} is not a JSON object. Fix: one object a line")
        rows.append(row)
        columns.update(dict.fromkeys(row))
    return rows, tuple(columns)


def _read_parquet(path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    parquet, errors = require("pyarrow.parquet"), require("pyarrow.lib")
    try:
        content = parquet.read_table(path)
    except errors.ArrowException as error:
        raise DataError(f"{path} cannot be read: {error}. Fix: give a Parquet file") from error
    return content.to_pylist(), tuple(content.column_names)
