"""A run's figures in words and as a table."""

from collections.abc import Mapping
from typing import Any

from penjing.core import clean, cut
from penjing.report._layout import Stacked
from penjing.report._units import size, spread

LABEL = 20  # characters of a class name
HEADINGS = (
    "network",
    "params",
    "MACs",
    "size",
    "latency",
    "memory",
    "accuracy",
    "macro recall",
    "worst class",
)


def verdict(metrics: Mapping[str, Any]) -> str:
    """One sentence about the slim network; a reference that guesses and a control that does as well come first.

    It compares counts and measured means; it is no statistical test.
    """
    rows = {row["name"]: row for row in metrics["rows"]}
    slim, reference = rows["slim"], rows[metrics["reference"]]
    parts = [f"{slim['macs'] / reference['macs']:.0%} of the MACs", *_speed(slim), _accuracy(slim, reference)]
    return _guess(reference) + "".join(_rivals(rows)) + f"slim: {', '.join(parts)}"


def _guess(reference: Mapping[str, Any]) -> str:
    """A warning where the reference learnt nothing: macro recall within a tenth of the way from 1 / classes to 1."""
    chance = 1 / max(1, len(reference["per_class"]))
    if reference["macro_recall"] > chance + 0.1 * (1 - chance):
        return ""
    return (
        f"{reference['name']} is no better than guessing (macro recall {reference['macro_recall']:.1%}), so these "
        "accuracies say nothing: try pretrained weights, a smaller lr or more epochs. "
    )


def cells(metrics: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """One tuple of texts per row of the table, in the order of `HEADINGS`."""
    return tuple(_cells(row) for row in metrics["rows"])


def table(metrics: Mapping[str, Any]) -> Stacked:
    """The figures for `rich`: one table where it fits the terminal, else several below each other."""
    return Stacked(title=_title(metrics), headings=HEADINGS, rows=cells(metrics))


def plain(metrics: Mapping[str, Any]) -> str:
    """The same table in plain text, for files and pipes."""
    lines = (HEADINGS, *cells(metrics))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [_line(line, widths) for line in lines]
    return "\n".join((_title(metrics), text[0], "-" * len(text[0]), *text[1:]))


def _line(line: tuple[str, ...], widths: list[int]) -> str:
    first = line[0].ljust(widths[0])
    return "  ".join((first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))))


def _title(metrics: Mapping[str, Any]) -> str:
    data, latency = metrics["data"], metrics["rows"][0]["latency_ms"]
    name, reference = clean(data["name"]), clean(metrics["reference"])
    where = f"{latency['device']}, {latency['runtime']}, {latency['threads']} threads"
    return (
        f"{name}: {data['n']} {data['split']} examples; "
        f"latency at batch {latency['batch_size']} ({where}); reference: {reference}"
    )


def _rivals(rows: Mapping[str, Any]) -> list[str]:
    slim, said = rows["slim"]["accuracy"], []
    for name, row in rows.items():
        if name.startswith("control:") and row["accuracy"] >= slim:
            how = "beats" if row["accuracy"] > slim else "does as well as"
            said.append(f"{clean(name)} {how} slim (accuracy {row['accuracy']:.1%} vs {slim:.1%}). ")
    return said


def _speed(slim: Mapping[str, Any]) -> list[str]:
    said = []
    for key, speedup in slim.get("speedup", {}).items():
        batch = key.removeprefix("batch_")
        span = f"({speedup['low']:.1f}-{speedup['high']:.1f})"
        faster = (
            f"{speedup['ratio']:.1f}x faster"
            if speedup["low"] > 1
            else f"not faster ({speedup['ratio']:.2f}x)"
        )
        said.append(f"{faster} at batch {batch} {span}")
    return said


def _accuracy(slim: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    points = 100 * (slim["accuracy"] - reference["accuracy"])
    return f"accuracy {slim['accuracy']:.1%} vs {reference['accuracy']:.1%} ({points:+.1f} points)"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    latency, memory = row["latency_ms"], row.get("peak_memory")
    return (
        clean(row["name"]),
        count(row["params"]),
        count(row["macs"]),
        size(row["size_bytes"]),
        spread(latency["median"], latency["mad"]) if latency else "",
        size(memory["bytes"]) if memory else "",
        *(f"{row[key]:.2%}" if row[key] is not None else "" for key in ("accuracy", "macro_recall")),
        _worst(row.get("per_class")),
    )


def _worst(per_class: Mapping[str, float | None] | None) -> str:
    known = {label: recall for label, recall in (per_class or {}).items() if recall is not None}
    if not known:
        return ""
    label = min(known, key=lambda key: known[key])
    return f"{cut(clean(label), LABEL)}: {known[label]:.1%}"


def count(number: float) -> str:
    """A count in the decimal units of budgets.

    >>> count(999), count(3_420_000), count(1.2e10)
    ('999', '3.42M', '12.00G')
    """
    for scale, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.2f}{sign}"
    return f"{number:.0f}"
