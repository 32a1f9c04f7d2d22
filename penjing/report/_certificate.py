"""A certificate in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from penjing.certify import confidence
from penjing.core import clean

MOST = 5  # parts shown


def certificate_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Verdict and reason first, then the figures that it rests on, the worst parts, and how many answers changed."""
    metric, sure = found["metric"].replace("_", " "), confidence(found["alpha"])
    yield f"{found['verdict']}: {clean(found['why'])}"
    counts = (
        "" if found["b"] is None else f"; {found['b']} right before alone, {found['c']} right after alone"
    )
    groups = "" if found["clusters"] is None else f" in {found['clusters']} groups"
    scores = f"{found['reference']:.2%} before, {found['candidate']:.2%} after"
    yield f"{metric} {scores}, on {found['n']} examples{groups}{counts}"
    yield (
        f"{found['test']}; margin {100 * found['margin']:g} points, alpha {found['alpha']:g}; "
        f"loses at most {100 * found['bound']:.2f} points {sure}"
    )
    for one in found.get("also", ()):
        yield f"also {one['metric'].replace('_', ' ')}: {one['verdict']}, {clean(one['why'])}"
    for what in ("classes", "slices"):
        yield from _worst(what, found.get(what))
    flips = found["flips"]
    changed = flips["negative"] + flips["positive"] + flips["other"]
    yield (
        f"{changed} of {flips['n']} answers changed ({flips['churn']:.2%}): {flips['negative']} to the worse, "
        f"{flips['positive']} to the better, {flips['other']} from one wrong answer to another"
    )
    if copies := found.get("copies"):
        yield copies_told(copies, found["n"])
    file = found["file"]
    yield f"of {clean(file['path'])} ({file['runtime']}, sha256 {file['sha256'][:16]}...)"


def copies_told(copies: int, n: int) -> str:
    """What examples that repeat others mean, in words."""
    return (
        f"{copies} of the {n} examples are copies of others: they tell nothing new, and the certificate is as sure as "
        f"it says only of {n - copies} examples or fewer. Leave copies out"
    )


def _worst(what: str, parts: Mapping[str, Any] | None) -> Iterator[str]:
    """Those that are shown to be harmed, or the one that lost most."""
    if not parts or not parts["parts"]:
        return
    harmed = [part for part in parts["parts"] if part["name"] in parts["harmed"]]
    limit = f"more than {100 * parts['margin']:g} points"
    if not harmed:
        yield f"{what}: none is shown to have lost {limit}; most lost {_told(parts['parts'][0])}"
        return
    told = "; ".join(map(_told, harmed[:MOST]))
    yield f"{what} shown to have lost {limit}: {told}{f'; and {len(harmed) - MOST} more' if len(harmed) > MOST else ''}"


def _told(part: Mapping[str, Any]) -> str:
    return f"{clean(part['name'])} ({part['reference']:.1%} to {part['candidate']:.1%} of {part['n']})"
