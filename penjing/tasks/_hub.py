"""A data set of the Hugging Face hub, by name."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from penjing.core import DataError, hub_address, reachable
from penjing.tasks._columns import CALLED, Columns, Kind
from penjing.tasks._examples import Example, Examples, flat, ordered_labels
from penjing.tasks._require import require
from penjing.tasks._splits import PARTS
from penjing.tasks._table import Layout, content_of, label_of, layout_of


def hub(name: str, kind: Kind, columns: Columns) -> Examples:
    """The data set `NAME` or `NAME:CONFIG`; its parts (train, validation, test) are kept.

    Pictures and clips stay encoded until they are read like files. Rows without a label (None or negative) are passed
    over. Needs the package `datasets` and a hub within reach; code of the hub is never run. Raises DataError.
    """
    datasets = require("datasets", install="datasets")
    repository, _, config = name.partition(":")
    why = reachable(hub_address())
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
        layout = _layout(datasets, name, rows, kind, columns)
        names = _names(rows.features[layout.label])
        labels = names or labels
        files = {"pictures": "Image", "sounds": "Audio", "speech": "Audio"}.get(kind)
        if files is not None:
            rows = rows.cast_column(layout.content, getattr(datasets, files)(decode=False))
        examples += _read(name, part, rows, layout, names)
    return _examples(name, examples, tuple(labels), kind)


def _layout(datasets: Any, name: str, rows: Any, kind: Kind, columns: Columns) -> Layout:
    """The columns asked for, else the only one of the right type, else those of usual names."""
    asked = columns
    content = {"pictures": ("Image",), "sounds": ("Audio",), "speech": ("Audio",)}.get(kind, ())
    label = () if kind in ("speech", "words") else ("ClassLabel",)
    if asked.path is None and content:
        asked = replace(asked, path=_only(datasets, rows, content[0]))
    if asked.label is None and label:
        asked = replace(asked, label=_only(datasets, rows, label[0]))
    return layout_of(f"Data set {name!r}", list(rows.features), kind, asked)


def _only(datasets: Any, rows: Any, kind: str) -> str | None:
    typed = [
        column for column, feature in rows.features.items() if isinstance(feature, getattr(datasets, kind))
    ]
    return typed[0] if len(typed) == 1 else None


def _names(feature: Any) -> Sequence[str]:
    """The classes of a column of numbers, or of lists of them."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None) or ()


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


def _examples(name: str, examples: list[Example], declared: tuple[str, ...], kind: Kind) -> Examples:
    if not examples:
        raise DataError(
            f"Data set {name!r} has no labelled rows. Fix: choose one with {CALLED[kind]} and labels"
        )
    used = {label for example in examples for label in flat(example.label)}
    labels = tuple(label for label in declared if label in used) or ordered_labels(used)
    return Examples(name=name, source=f"hf:{name}", licence="see its page", examples=examples, labels=labels)


def _read(name: str, part: str, rows: Any, layout: Layout, names: Sequence[str]) -> Iterator[Example]:
    kept = part.lower() if part.lower() in PARTS else None
    for number, row in enumerate(rows, start=1):
        value = row[layout.label]
        if value is None or row[layout.content] is None or (isinstance(value, int) and names and value < 0):
            continue
        if names:
            value = [names[v] for v in value] if isinstance(value, list) else names[value]
        content, _ = content_of(row, layout, Path())
        yield Example(content, label_of(value, layout.kind), f"row {number} of {name} ({part})", kept)
