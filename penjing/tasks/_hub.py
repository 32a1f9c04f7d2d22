"""A data set of the Hugging Face hub, by name."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from penjing.core import DataError, reachable
from penjing.tasks._examples import Example, Examples, ordered_labels
from penjing.tasks._require import require
from penjing.tasks._splits import PARTS
from penjing.tasks._table import LABEL_COLUMNS, PATH_COLUMNS

HUB = "https://huggingface.co"


def hub(name: str, path_column: str | None, label_column: str | None) -> Examples:
    """The data set `NAME` or `NAME:CONFIG`; its parts (train, validation, test) are kept.

    Pictures stay encoded until they are read like files. Rows without a label (None or negative) are passed
    over. Needs the package `datasets` and a hub within reach; code of the hub is never run. Raises DataError.
    """
    datasets = require("datasets", install="datasets")
    repository, _, config = name.partition(":")
    why = reachable(os.environ.get("HF_ENDPOINT", HUB))
    try:
        with _offline() if why else nullcontext():
            loaded = datasets.load_dataset(repository, config or None)
    except Exception as error:
        said = f"the hub cannot be reached ({why})" if why else f"{type(error).__name__}: {error}"
        raise DataError(
            f"Data set {name!r} cannot be fetched: {said}. If a folder or file was meant: "
            "there is none of that name. Fix: check the name, or go online"
        ) from error
    examples, labels = [], ()
    for part, rows in loaded.items():
        image = _column(datasets, name, rows, path_column, PATH_COLUMNS, picture=True)
        label = _column(datasets, name, rows, label_column, LABEL_COLUMNS, picture=False)
        labels = getattr(rows.features[label], "names", None) or labels
        rows = rows.cast_column(image, datasets.Image(decode=False))
        examples += _read(name, part, rows, image, label)
    return _examples(name, examples, tuple(labels))


@contextmanager
def _offline() -> Iterator[None]:
    """Within, the hub's libraries look into their caches and try no connection."""
    found = [
        (module, name)
        for module, name in (
            (sys.modules.get("datasets.config"), "HF_HUB_OFFLINE"),
            (sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE"),
        )
        if hasattr(module, name)
    ]
    before = [getattr(module, name) for module, name in found]
    for module, name in found:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(found, before, strict=True):
            setattr(module, name, value)


def _examples(name: str, examples: list[Example], declared: tuple[str, ...]) -> Examples:
    if not examples:
        raise DataError(f"Data set {name!r} has no labelled rows. Fix: choose one for image classification")
    used = {example.label for example in examples}
    labels = tuple(label for label in declared if label in used) or ordered_labels(used)
    return Examples(name=name, source=f"hf:{name}", licence="see its page", examples=examples, labels=labels)


def _read(name: str, part: str, rows: Any, image: str, label: str) -> Iterator[Example]:
    names = getattr(rows.features[label], "names", None)
    kept = part.lower() if part.lower() in PARTS else None
    for number, row in enumerate(rows, start=1):
        value, cell = row[label], row[image]
        if value is None or (isinstance(value, int) and names and value < 0):
            continue
        text = names[value] if names else str(value)
        picture = cell["bytes"] or Path(cell["path"])
        yield Example(picture, text, f"row {number} of {name} ({part})", kept)


def _column(
    datasets: Any, name: str, rows: Any, asked: str | None, usual: tuple[str, ...], *, picture: bool
) -> str:
    """The column asked for, else the only one of the right type, else one of a usual name."""
    features = rows.features
    kind = datasets.Image if picture else datasets.ClassLabel
    typed = [column for column, feature in features.items() if isinstance(feature, kind)]
    named = [column for column in usual if column in features]
    usable = typed if len(typed) == 1 else named or typed
    found = usable if asked is None else [column for column in features if column == asked]
    if not found:
        what = "pictures" if picture else "labels"
        option = "path_column (--path-column)" if picture else "label_column (--label-column)"
        raise DataError(
            f"Data set {name!r} has no column {asked or f'of {what}'!r}. Its columns: {', '.join(features)}. "
            f"Fix: name it with {option}"
        )
    return found[0]
