"""A CSV, JSONL or Parquet file with one row per example."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.core import DataError, clean, cut
from penjing.tasks._columns import CALLED, CONTENT, LABEL, SECOND, Columns, Kind
from penjing.tasks._examples import Example, Examples, gather
from penjing.tasks._require import require
from penjing.tasks._splits import PARTS

SPLIT_COLUMN, GROUP_COLUMN = "split", "group"
SUFFIXES = (".csv", ".jsonl", ".parquet")
LONGEST = 1 << 30  # characters in one field of a CSV file
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which column holds what; None where there is none."""

    kind: Kind
    content: str
    pair: str | None
    label: str
    split: str | None
    group: str | None


def table(path: Path, kind: Kind, columns: Columns) -> Examples:
    """One example per row of `path`.

    The columns of contents and labels are found by their usual names (`_columns`) unless given. A relative path is
    relative to the file's own folder; a Parquet cell may also hold an encoded file's bytes. Words and their tags are
    lists, or texts with spaces between. A column `split` with train, val or test assigns parts; rows of one `group`
    stay in one split. Raises DataError that names columns or the row.
    """
    rows, found = _read(path)
    layout = layout_of(path, found, kind, columns)
    examples = [_example(path, n, row, layout) for n, row in enumerate(rows, start=1)]
    return gather(path.stem, str(path), examples, f"{path} has no rows. Fix: give one row per example")


def layout_of(path: Path | str, found: Sequence[str], kind: Kind, columns: Columns) -> Layout:
    """The columns of a table whose header is `found`; raises DataError that lists them."""
    asked, option = columns.content(kind)
    content = _column(path, found, asked, CONTENT[kind], CALLED[kind], option)
    usual = [name for name in LABEL[kind] if name != content.lower()]
    label = _column(path, found, columns.label, usual, "labels", "label_column (--label-column)")
    pair = SECOND.get(content.lower()) if kind == "texts" else None
    if columns.pair is not None:
        pair = _column(path, found, columns.pair, (), "second texts", "pair_column (--pair-column)")
    return Layout(
        kind=kind,
        content=content,
        pair=pair if pair in found else None,
        label=label,
        split=SPLIT_COLUMN if SPLIT_COLUMN in found else None,
        group=GROUP_COLUMN if GROUP_COLUMN in found else None,
    )


def _example(path: Path, number: int, row: Row, layout: Layout) -> Example:
    where = f"row {number} of {path}"
    for column in (layout.content, layout.label, *((layout.pair,) if layout.pair else ())):
        if _empty(row.get(column)):
            raise DataError(f"Column {column!r} is empty in {where}. Fix: fill it in, or remove the row")
    part = None
    if layout.split is not None:
        part = str(row.get(layout.split) or "").strip().lower()
        if part not in PARTS:
            raise DataError(
                f"Column 'split' is {row.get(layout.split)!r} in {where}. Fix: use one of {', '.join(PARTS)}"
            )
    _plain(row, layout, where)
    content, shown = content_of(row, layout, path.parent)
    group = None if layout.group is None else str(row.get(layout.group) or "").strip() or None
    name = clean(f"{shown} ({where})" if shown else where)
    return Example(content, label_of(row[layout.label], layout.kind), name, part, group)


def _plain(row: Row, layout: Layout, where: str) -> None:
    """Raises DataError for a list or an object where one text or one label belongs, and for missing words."""
    words, texts = layout.kind == "words", layout.kind in ("texts", "words")
    for column in (layout.content, layout.pair, layout.label) if texts else (layout.label,):
        value = row[column] if column else None
        if isinstance(value, list | tuple) and words:
            if any(_empty(word) or isinstance(word, list | tuple | Mapping) for word in value):
                raise DataError(
                    f"Column {column!r} has an entry that is no word in {where}: {cut(str(value), 60)}. Fix: give a "
                    "flat list of words"
                )
        elif isinstance(value, list | tuple | Mapping):
            kind = "an object" if isinstance(value, Mapping) else "a list"
            raise DataError(
                f"Column {column!r} holds {kind} in {where}: {cut(str(value), 60)}. Fix: give one text or number a row"
            )


def _empty(value: Any) -> bool:
    """True for nothing, not a number, and texts and lists without content."""
    if value is None or value != value:
        return True
    return (isinstance(value, str | list | tuple) and not len(value)) or str(value).isspace()


def label_of(value: Any, kind: Kind) -> str | tuple[str, ...]:
    """A cell's label: a class or a transcript, or the tags of words."""
    return words_of(value) if kind == "words" else str(value).strip()


def words_of(value: Any) -> tuple[str, ...]:
    """The words in a cell: a list, a list written as JSON, or a text with spaces between."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return tuple(value.split())
    if isinstance(value, str):
        return tuple(value.split())
    return tuple(str(word) for word in value)


def content_of(row: Row, layout: Layout, parent: Path) -> tuple[Any, str]:
    """A row's content and what to call it: a file below `parent`, a file's bytes, a text, two texts, or words."""
    cell = row[layout.content]
    if layout.kind == "words":
        return words_of(cell), ""
    if layout.kind == "texts":
        return (str(cell) if layout.pair is None else (str(cell), str(row[layout.pair]))), ""
    if isinstance(cell, Mapping):  # as Hugging Face stores files
        cell = cell.get("bytes") or cell.get("path") or ""
    if isinstance(cell, bytes):
        return cell, ""
    return parent / str(cell), str(cell)


def _column(
    path: Path | str, columns: Sequence[str], asked: str | None, usual: Sequence[str], what: str, option: str
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
    before = csv.field_size_limit(LONGEST)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return list(reader), tuple(reader.fieldnames or ())
    finally:
        csv.field_size_limit(before)


def _read_jsonl(path: Path) -> tuple[Sequence[Row], Sequence[str]]:
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
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
