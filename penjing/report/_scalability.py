"""How the speed-up holds in other places, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.core import clean
from penjing.report._layout import Stacked
from penjing.report._units import spread

TITLE = "The same network elsewhere, in turns with the {reference} one:"
HEADINGS = ("runtime", "device", "batch", "threads", "reference", "slim", "times as fast", "95% interval")


def scalability_table(metrics: Mapping[str, Any]) -> Stacked:
    """A row per place."""
    title = TITLE.format(reference=clean(metrics["reference"]))
    rows = [_row(row) for row in metrics["scalability"]]
    return Stacked(title=title, headings=HEADINGS, rows=rows, words=("device",))


def scalability_why(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """Per place without figures, why there are none."""
    missing = (row for row in metrics.get("scalability", ()) if "why" in row)
    return tuple(f"{clean(row['place'])}: {clean(row['why'])}" for row in missing)


def _row(row: Mapping[str, Any]) -> Sequence[str]:
    place = (clean(row["runtime"]), clean(row["device"]), str(row["batch_size"]), str(row["threads"]))
    if "why" in row:
        return (*place, "not timed", "", "", "")
    times = (spread(row[side]["median"], row[side]["mad"]) for side in ("a_ms", "b_ms"))
    return (*place, *times, f"{row['ratio']:.2f}x", f"{row['low']:.2f} to {row['high']:.2f}")
