"""How the speed-up holds in other places, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.core import clean
from penjing.report._layout import Stacked
from penjing.report._units import spread

TITLE = "The same network elsewhere, in turns with the {reference} one:"
HEADINGS = ("runtime", "device", "batch", "threads", "reference", "slim", "times as fast", "95% interval")


def scalability_table(metrics: Mapping[str, Any]) -> Stacked:
    """The places for `rich`."""
    return Stacked(title=_title(metrics), headings=HEADINGS, rows=_rows(metrics))


def scalability_plain(metrics: Mapping[str, Any]) -> str:
    """The same in plain text, for files and pipes."""
    lines = (HEADINGS, *_rows(metrics))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join((_title(metrics), *(line.rstrip() for line in text)))


def scalability_why(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Per place without figures, why there are none."""
    missing = (row for row in metrics.get("scalability", ()) if "why" in row)
    return tuple(f"{clean(row['place'])}: {clean(row['why'])}" for row in missing)


def _title(metrics: Mapping[str, Any]) -> str:
    return TITLE.format(reference=clean(metrics["reference"]))


def _rows(metrics: Mapping[str, Any]) -> list[Sequence[str]]:
    return [_row(row) for row in metrics["scalability"]]


def _row(row: Mapping[str, Any]) -> Sequence[str]:
    place = (clean(row["runtime"]), clean(row["device"]), str(row["batch_size"]), str(row["threads"]))
    if "why" in row:
        return (*place, "not timed", "", "", "")
    times = (spread(row[side]["median"], row[side]["mad"]) for side in ("a_ms", "b_ms"))
    return (*place, *times, f"{row['ratio']:.2f}x", f"{row['low']:.2f} to {row['high']:.2f}")
