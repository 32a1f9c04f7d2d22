"""The first sections of report.html: the networks and the certificate."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from penjing.certify import confidence
from penjing.core import clean, cut
from penjing.report._certificate import certificate_lines, copies_told
from penjing.report._charts import scatter
from penjing.report._layout import Stacked
from penjing.report._table import SCORES, cells, count, headings
from penjing.report._units import size

MOST_PARTS = 16
READINGS = {
    "certified": "The examples show, at {sure}, that the {metric} of the file handed over is less than {margin} "
    "below that of the network before compression. Were it really worse by that much, this verdict would come about "
    "in at most {alpha} of such tests.",
    "not certified": "The examples do not bear the claim that the {metric} of the file handed over is less than "
    "{margin} below that of the network before compression, and they were enough to bear it, or they show the "
    "opposite.",
    "cannot certify": "The examples are too few to tell, whatever the network is like: even one exactly as good as "
    "before would probably not be shown to be within {margin} of {metric}. This is neither a pass nor a failure.",
}


def rows_table(metrics: Mapping[str, Any]) -> Stacked:
    latency, data = metrics["rows"][0]["latency_ms"], metrics["data"]
    where = f"{latency['device']}, {latency['runtime']}, {latency['threads']} threads" if latency else ""
    batch = latency["batch_size"] if latency else ""
    title = f"{data['n']} {data['split']} examples; latency at batch {batch} ({where})"
    words = ("worst class",)
    return Stacked(title=title, headings=headings(metrics), rows=cells(metrics), words=words)


def tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures that people ask for first."""
    rows = {row["name"]: row for row in metrics["rows"]}
    slim, whole = rows["slim"], rows[metrics["reference"]]
    found = [
        {"value": f"{one['ratio']:.2f}x", "told": f"as fast at batch {key.removeprefix('batch_')}"}
        for key, one in list(slim.get("speedup", {}).items())[:2]
    ]
    found.append(
        {"value": f"{slim['macs'] / whole['macs']:.0%}", "told": f"of the MACs: {count(slim['macs'])}"}
    )
    told = f"of the parameters: {count(slim['params'])}"
    found.append({"value": f"{slim['params'] / whole['params']:.0%}", "told": told})
    found.append({"value": size(slim["size_bytes"]), "told": f"on disk, was {size(whole['size_bytes'])}"})
    name = metrics.get("headline", {}).get("metric", "accuracy")
    found.append({"value": f"{slim[name]:.1%}", "told": f"{SCORES[name]}, was {whole[name]:.1%}"})
    return found


def pareto(metrics: Mapping[str, Any]) -> tuple[Markup | None, str]:
    """Every row by its time and its score, and what the chart shows in words."""
    name = metrics.get("headline", {}).get("metric", "accuracy")
    rows = [row for row in metrics["rows"] if row.get(name) is not None and row["latency_ms"]]
    if len(rows) < 2:
        return None, ""
    kinds = {"slim": "dot-after", metrics["reference"]: "dot-before"}
    points = [
        (clean(row["name"]), row["latency_ms"]["median"], row[name], kinds.get(row["name"], "dot-other"))
        for row in rows
    ]
    batch = rows[0]["latency_ms"]["batch_size"]
    told = "; ".join(f"{label}: {x:.3g} ms, {y:.1%}" for label, x, y, _ in points)
    better = "higher" if metrics.get("headline", {}).get("larger_is_better", True) else "lower"
    drawn = scatter(points, x_name=f"milliseconds of a batch of {batch}", y_name=SCORES[name], told=told)
    return drawn, f"Time and {SCORES[name]}: further left is faster, {better} is better."


def seeds_told(metrics: Mapping[str, Any]) -> str:
    found = metrics.get("seeds")
    if not found:
        return ""
    values = ", ".join(f"{value:.2%}" for value in found["values"])
    name = SCORES.get(found["metric"], found["metric"])
    return (
        f"The recovery was repeated with {len(found['values'])} seeds: {name} {values} (standard deviation "
        f"{100 * found['sd']:.2f} points). Differences of that size are chance."
    )


def certificate_part(found: Mapping[str, Any], others: int) -> dict[str, Any]:
    """The plain-words reading, the figures, and what weakens them."""
    margin = f"{100 * found['margin']:g} points"
    told = {
        "sure": confidence(found["alpha"]).removeprefix("at "),
        "alpha": _percent(found["alpha"]),
        "margin": margin,
    }
    reading = READINGS[found["verdict"]].format(**told, metric=SCORES.get(found["metric"], found["metric"]))
    notes = []
    if others:
        notes.append(
            f"These examples have certified {others} other files on this machine: the more are tried on them, the "
            "likelier is a wrong certificate. Fresh examples restore it."
        )
    if found.get("copies"):
        notes.append(f"{copies_told(found['copies'], found['n'])}.")
    if found.get("unlike_pytorch"):
        notes.append(
            f"The file answers {found['unlike_pytorch']} of {found['n']} examples differently from the network in "
            "PyTorch."
        )
    rows = [(what, clean(value)) for what, value in _figures(found)]
    table = Stacked(title="The certificate", headings=("what", "figure"), rows=rows, words=("figure",))
    return {"reading": reading, "table": table, "notes": notes}


def _percent(share: float) -> str:
    return f"{round(100 * share, 4):g}%"


def _figures(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("verdict", found["verdict"]), ("test", found["test"]), ("examples", _examples(found))]
    rows += [("before", f"{found['reference']:.2%}"), ("after", f"{found['candidate']:.2%}")]
    rows += [("margin", f"{100 * found['margin']:g} points"), ("alpha", _percent(found["alpha"]))]
    rows.append((f"loses at most, {confidence(found['alpha'])}", f"{100 * found['bound']:.2f} points"))
    if found["statistic"] is not None:
        rows.append(("statistic, critical value", f"{found['statistic']:.3f}, {found['critical']:.3f}"))
    if found["power"] is not None:
        rows.append(("power for an equally good network", f"{found['power']:.0%}"))
    if found["examples_needed"] is not None:
        rows.append(("examples for a power of 80%", str(found["examples_needed"])))
    rows += [
        (f"also {one['metric'].replace('_', ' ')}", f"{one['verdict']}: {one['why']}")
        for one in found.get("also", ())
    ]
    file = found["file"]
    rows.append(("file", f"{file['path']} ({file['runtime']}), sha256 {file['sha256']}"))
    return [*rows, ("fingerprint of the examples", found["data_fingerprint"] or "")]


def _examples(found: Mapping[str, Any]) -> str:
    if found["b"] is None:
        return str(found["n"])
    return f"{found['n']}: {found['b']} right only before, {found['c']} right only after"


def parts_rows(found: Mapping[str, Any], what: str) -> dict[str, Any] | None:
    """Those that lost most, as shares answered rightly before and after."""
    parts = found.get(what)
    if not parts or not parts["parts"]:
        return None
    shown = parts["parts"][:MOST_PARTS]
    rows = [
        {
            "name": cut(clean(part["name"]), 40),
            "cells": (
                str(part["n"]),
                f"{part['reference']:.1%}",
                f"{part['candidate']:.1%}",
                f"{100 * (part['candidate'] - part['reference']):+.1f}",
                f"{part['p']:.3f}",
            ),
            "before": 100 * part["reference"],
            "after": 100 * part["candidate"],
        }
        for part in shown
    ]
    told = next(line for line in certificate_lines(found) if line.startswith(what))
    more = len(parts["parts"]) - len(shown)
    caption = f"{what.capitalize()}, those that lost most first{f'; {more} more lost less' if more else ''}"
    names = (what, "examples", "before", "after", "points", "p (Holm)")
    return {"rows": rows, "headings": names, "told": f"{told[0].upper()}{told[1:]}.", "caption": caption}
