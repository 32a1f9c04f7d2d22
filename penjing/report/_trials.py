"""The trials of a search of options, as a table."""

from collections.abc import Mapping
from typing import Any

from penjing.core import clean

LOST = "lost"


def trials(tuned: Mapping[str, Any]) -> str:
    """Which options were tried and what came of each, the chosen one marked; lost trials are counted below."""
    names, metric = list(tuned["space"]), tuned["metric"]
    rows = [row for row in tuned["trials"] if row["state"] != LOST]
    lines = [("trial", *names, metric, "loss", "seconds", "state")]
    lines += [_line(row, names, tuned["chosen"]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    lost = len(tuned["trials"]) - len(rows)
    told = f"tuned on the {tuned['split']} split, {tuned['epochs']} epochs a trial: {clean(tuned['why'])}"
    return "\n".join((told, *text, *([f"{lost} trials were lost with their workers"] if lost else [])))


def _line(row: Mapping[str, Any], names: list[str], chosen: int | None) -> tuple[str, ...]:
    state = (
        row["state"]
        + (" (the recipe's own)" if row["own"] else "")
        + (" <-" if row["number"] == chosen else "")
    )
    options = (row["params"].get(name, "") for name in names)
    return (
        str(row["number"]),
        *map(_short, options),
        _short(row["value"]),
        _short(row["loss"]),
        _short(row["seconds"]),
        state,
    )


def _short(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else clean(str(value))
