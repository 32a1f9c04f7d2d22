"""From the words that name data to examples of the kind that a task needs."""

import os
import re
from pathlib import Path

from penjing.core import DataError, cut
from penjing.tasks._builtin import SETS, builtin
from penjing.tasks._columns import Columns, Kind
from penjing.tasks._examples import Examples
from penjing.tasks._folder import folder
from penjing.tasks._hub import hub
from penjing.tasks._table import SUFFIXES, table

HUB_NAME = re.compile(r"[\w-]+/[\w.-]+(:[\w.-]+)?")


def find_examples(data: str, kind: Kind, columns: Columns) -> Examples:
    """The examples that `data` names: a folder of class folders, a CSV, JSONL or Parquet file, builtin:NAME, or
    OWNER/NAME of a Hugging Face data set (hf:NAME for one without owner). Raises DataError, UsageError.
    """
    if not data.strip():
        raise DataError(f"Data without a name. Fix: give {_forms(kind)}")
    word, _, rest = data.partition(":")
    if word == "builtin":
        columns.refuse_any(data, "is a built-in set without columns")
        return builtin(rest, kind)
    if word == "hf":
        return hub(rest, kind, columns)
    path = Path(data)
    if os.path.isdir(path):
        return folder(path, kind, columns)
    if path.suffix.lower() in SUFFIXES:
        return table(path, kind, columns)
    if not os.path.exists(path) and HUB_NAME.fullmatch(data):
        return hub(data, kind, columns)
    why = "is a file of another kind" if os.path.exists(path) else "does not exist"
    raise DataError(f"Data {cut(data)!r} {why}. Fix: give {_forms(kind)}")


def _forms(kind: Kind) -> str:
    named = (f"builtin:{name}" for name in SETS[kind])
    shelf = "a folder of class folders, " if kind not in ("words", "speech") else ""
    return (
        f"{shelf}a table ({', '.join(SUFFIXES)}), {', '.join(named)}, "
        "or OWNER/NAME of a Hugging Face data set (hf:NAME for one without owner)"
    )
