"""The trials of a search of options, as a table."""

from collections.abc import Mapping
from typing import Any

from penjing.core import clean
from penjing.report._layout import Stacked

LOST = "lost"


def trials(tuned: Mapping[str, Any]) -> Stacked:
    """Which options were tried and what came of each, the chosen one marked."""
    names = list(tuned["space"])
    return Stacked(
        title=f"tuned on the {tuned['split']} split, {tuned['epochs']} epochs a trial: {clean(tuned['why'])}",
        headings=("trial", *names, tuned["metric"], "loss", "seconds", "state"),
        rows=[_line(row, names, tuned["chosen"]) for row in tuned["trials"] if row["state"] != LOST],
        words=("state",),
    )


def trials_lost(tuned: Mapping[str, Any]) -> tuple[str, ...]:
    """How many trials were lost with their workers, where any were."""
    lost = sum(row["state"] == LOST for row in tuned["trials"])
    told = "1 trial was lost with its worker" if lost == 1 else f"{lost} trials were lost with their workers"
    return (told,) if lost else ()


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
