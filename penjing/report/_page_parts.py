"""What the sections of report.html show, taken from a run's files."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from penjing.core import clean
from penjing.report._charts import curve, depth, ends, lines
from penjing.report._layout import Stacked
from penjing.report._table import SCORES, count

MOST_LAYERS, MOST_CURVES = 60, 18
NAMED = 3  # modules named one by one
BRIEF = 0.01  # of the time: blocks below are left out
FEW = 0.002  # of the MACs: layers below are left out where there are too many
Found = Mapping[str, Any] | None
KINDS = {
    "negative": "Right before, wrong after",
    "positive": "Wrong before, right after",
    "other": "From one wrong answer to another",
}


def layer_rows(explain: Found) -> dict[str, Any] | None:
    """Layers in order, bars by their outputs."""
    layers = (explain or {}).get("layers")
    if not layers:
        return None
    whole, widest = sum(one["macs_before"] for one in layers), max(one["before"] for one in layers)
    shown = layers
    if len(layers) > MOST_LAYERS:
        least = sorted((one["macs_before"] for one in layers), reverse=True)[MOST_LAYERS - 1]
        shown = [one for one in layers if one["macs_before"] >= max(least, FEW * whole)]
    rows = [
        {
            "name": clean(one["path"]),
            "cells": (
                f"{one['before']} → {one['after'] if one['after'] is not None else 'gone'}",
                f"{one['macs_before'] / whole:.1%}",
                f"{one['macs_after'] / max(1, one['macs_before']):.0%}",
            ),
            "before": 100 * one["before"] / widest,
            "after": None if one["after"] is None else 100 * one["after"] / widest,
        }
        for one in shown
    ]
    left = f" (those with most MACs: {len(shown)} of {len(layers)})" if len(shown) < len(layers) else ""
    names = ("layer", "outputs", "share of MACs", "MACs left")
    return {
        "rows": rows,
        "headings": names,
        "caption": f"Layers with weights, in order; bars are outputs{left}",
    }


def block_rows(blocks: Found) -> dict[str, Any] | None:
    """Milliseconds by block."""
    if not blocks or not any(one["reference"] >= BRIEF * blocks["reference"] for one in blocks["blocks"]):
        return None
    shown = [one for one in blocks["blocks"] if one["reference"] >= BRIEF * blocks["reference"]]
    longest = max(max(one["reference"], one["slim"] or 0.0) for one in shown)
    rows = [
        {
            "name": clean(one["module"]),
            "cells": (f"{one['reference']:.3g}", f"{one['slim']:.3g}" if one["slim"] is not None else "gone"),
            "before": 100 * one["reference"] / longest,
            "after": None if one["slim"] is None else 100 * one["slim"] / longest,
        }
        for one in shown
    ]
    brief = len(blocks["blocks"]) - len(shown)
    told = (
        f"In PyTorch's ordinary runtime, a batch of {blocks['batch_size']}: {blocks['reference']:.3g} ms before, "
        f"{blocks['slim']:.3g} ms after, each block timed inside the "
        f"forward{f'; {brief} that take less than 1% each are left out' if brief else ''}."
    )
    names = ("block", "ms before", "ms after")
    return {"rows": rows, "headings": names, "told": told, "caption": "Milliseconds by block, in order"}


def curves(explain: Found) -> dict[str, Any] | None:
    """Every group's cost by how much of it goes; those that were cut deepest are drawn."""
    removed = (explain or {}).get("removed", {})
    groups = [group for group in removed.get("groups", ()) if group.get("curve")]
    if not groups:
        return None
    by_loss = removed.get("unit") == "loss"
    unit = "loss" if by_loss else "score"
    cut_ones = [group for group in groups if group["removed"]] or groups
    deepest = sorted(cut_ones, key=lambda group: -group["removed"] / group["units"])[:MOST_CURVES]
    shown = [
        {
            "drawn": _curve(group, unit),
            "told": f"{clean(group['name'])}: {_left(group)} {group['granularity']}s left",
        }
        for group in deepest
    ]
    rows = [
        (
            clean(group["name"]),
            group["granularity"],
            str(group["units"]),
            str(group["units"] - group["removed"]),
            _cost(group),
        )
        for group in groups
    ]
    titles = ("group", "kind", "units", "left", f"predicted {unit}")
    told = (
        f"The {unit} that the criterion {clean(removed.get('criterion', ''))} predicts as more and more units of one "
        "group go, cheapest first, before any recovery; the broken line is where it was cut."
    )
    rest = (
        f"{len(groups) - len(shown)} more groups were cut less, or not." if len(groups) > len(shown) else ""
    )
    table = Stacked(title="Groups", headings=titles, rows=rows, words=("kind",))
    return {"told": told, "shown": shown, "rest": rest, "table": table}


def _curve(group: Mapping[str, Any], unit: str) -> Markup:
    points = [(float(gone), float(lost)) for gone, lost in group["curve"]]
    at = float(group["removed"])
    near = [lost for gone, lost in points if gone <= max(at * 1.3, 0.5 * group["units"])]
    told = f"{clean(group['name'])}: {group['removed']} of {group['units']} removed, predicted {unit} {_cost(group)}"
    return curve(points, at or None, told=told, top=max(near) * 1.15 if near else 1.0)


def _left(group: Mapping[str, Any]) -> str:
    return f"{group['units'] - group['removed']} of {group['units']}"


def _cost(group: Mapping[str, Any]) -> str:
    """What the curve says of what was removed, between its points."""
    points, at = group["curve"], group["removed"]
    for (a, low), (b, high) in pairwise(points):
        if a <= at <= b:
            return f"{low + (high - low) * (at - a) / max(1, b - a):.3g}"
    return ""


def frozen_table(explain: Found) -> Stacked | None:
    found = (explain or {}).get("frozen")
    if not found:
        return None
    rows = [(_several(one["modules"]), str(one["count"]), clean(one["cause"])) for one in found]
    return Stacked(title="Why", headings=("modules", "indices", "cause"), rows=rows, words=("cause",))


def _several(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(clean, names[:NAMED])) + more


def flips(metrics: Mapping[str, Any], explain: Found, stability: Found) -> dict[str, Any]:
    counts, found = (stability or {}).get("flips"), (explain or {}).get("flips", {})
    told = "Nothing was compared."
    if counts:
        all_of_them = counts["negative"] + counts["positive"] + counts["other"]
        told = (
            f"{all_of_them} of {counts['n']} answers changed ({counts['churn']:.1%}): {counts['negative']} were "
            f"right and are wrong now, {counts['positive']} were wrong and are right now, {counts['other']} went "
            "from one wrong answer to another."
        )
    shown = [_flip(one) for one in found.get("shown", ())]
    if shown and len(shown) < found["of"]:
        told += f" {len(shown)} of them are shown."
    kinds = [
        {"name": name, "shown": these, "words": any(one["text"] for one in these)}
        for kind, name in KINDS.items()
        if (these := [one for one in shown if one["kind"] == kind])
    ]
    return {"told": told, "kinds": kinds}


def _flip(one: Mapping[str, Any]) -> dict[str, Any]:
    blank = dict.fromkeys(("picture", "heat_before", "heat_after", "sound", "spectrogram", "text"), "")
    words = {name: clean(one[name]) for name in ("name", "label", "before", "after")}
    text = clean(one["text"]) if "text" in one else ""
    marked = [
        {"name": side, "tokens": _tokens(one["tokens"], one[f"weights_{side}"])}
        for side in ("before", "after")
        if f"weights_{side}" in one
    ]
    return {**blank, **one, **words, "text": text, "marked": marked}


def _tokens(tokens: Sequence[str], weights: Sequence[float]) -> list[dict[str, str]]:
    """Tokens on a ground that is the stronger the more they speak for the answer, or against it."""
    found = []
    for token, weight in zip(tokens, weights, strict=False):
        colour = "31,122,77" if weight > 0 else "179,67,27"
        found.append({"text": clean(token), "colour": f"rgba({colour},{0.55 * min(1.0, abs(weight)):.2f})"})
    return found


def disturbed(stability: Found) -> dict[str, Any] | None:
    rows = (stability or {}).get("disturbed")
    if not rows:
        return None
    assert stability is not None
    name: str = SCORES.get(stability["metric"]) or stability["metric"]
    clean_row, others = rows[0], rows[1:]
    span = ends([value for row in rows for value in (row["reference"], row["slim"])], room=0.06)
    kinds = dict.fromkeys(row["kind"] for row in others)
    shown = [
        _lines(kind, clean_row, [row for row in others if row["kind"] == kind], name, span) for kind in kinds
    ]
    worst = min(rows, key=lambda row: row["gap"])
    told = (
        f"The first {clean_row['n']} certification examples, disturbed at three strengths, the same for both "
        f"networks. The slim network falls furthest behind with {clean(worst['kind'])} at strength "
        f"{worst['strength']}: {100 * worst['gap']:+.1f} points{_interval(worst)}."
    )
    cells_of = [
        (
            clean(row["kind"]),
            str(row["strength"]) if row["strength"] else "",
            f"{row['reference']:.1%}",
            f"{row['slim']:.1%}",
            f"{100 * row['gap']:+.1f}{_interval(row)}",
        )
        for row in rows
    ]
    titles = ("disturbance", "strength", "before", "after", "points (95% interval)")
    return {"told": told, "shown": shown, "table": Stacked(title=name, headings=titles, rows=cells_of)}


def _lines(
    kind: str,
    first: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    name: str,
    span: tuple[float, float],
) -> dict[str, Any]:
    every = (first, *rows)
    before, after = ([(float(row["strength"]), row[side]) for row in every] for side in ("reference", "slim"))
    labels = ["none", *(str(row["strength"]) for row in rows)]
    told = f"{name} under {kind}: " + "; ".join(
        f"{label} {row['reference']:.0%} before, {row['slim']:.0%} after"
        for label, row in zip(labels, every, strict=True)
    )
    return {"drawn": lines(before, after, told=told, y=span, x_labels=labels), "told": clean(kind)}


def _interval(row: Mapping[str, Any]) -> str:
    return "" if row["low"] is None else f" ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"


def calibration(stability: Found) -> dict[str, Any] | None:
    found = (stability or {}).get("calibration")
    if not found:
        return None
    rows = [
        (
            "before" if side == "reference" else "after",
            scaled,
            f"{one['temperature']:.2f}" if scaled == "yes" else "1",
            *(f"{one[key][name]:.4f}" for name in ("nll", "brier")),
            f"{one[key]['ece']:.2%}",
        )
        for side, one in found.items()
        for scaled, key in (("no", "before"), ("yes", "after"))
    ]
    titles = ("network", "scaled", "temperature", "NLL", "Brier", "ECE")
    told = (
        "Smaller is better. Scaled: its logits divided by the temperature that suits the selection split. ECE is how "
        "far confidence and accuracy are apart on average."
    )
    return {"told": told, "table": Stacked(title="Confidence", headings=titles, rows=rows, words=("scaled",))}


def agreement(explain: Found) -> dict[str, Any] | None:
    found = (explain or {}).get("attribution")
    if not found:
        return None
    if "why" in found:
        return {"told": f"Attributions were not compared: {clean(found['why'])}.", "table": None}
    names = {"spearman": "rank correlation", "top_overlap": "overlap of the top tenth"}
    columns = ("all", "same answer", "flipped", "floor")
    rows = [
        (name, *("" if found[key][column] is None else f"{found[key][column]:.2f}" for column in columns))
        for key, name in names.items()
    ]
    told = (
        f"Integrated gradients of both networks for the first one's answer, on {found['n']} examples of which "
        f"{found['n_flipped']} changed their answer. The noise floor is how far two recoveries of the slim network "
        "that differ only in their seed agree: agreement near it is all that can be asked."
    )
    told += f" ({found['note'][0].upper()}{found['note'][1:]}.)" if "note" in found else ""
    titles = ("agreement", "all", "same answer", "flipped", "noise floor")
    return {"told": told, "table": Stacked(title="Before and after", headings=titles, rows=rows)}


def depth_chart(explain: Found) -> Markup | None:
    found = (explain or {}).get("cka")
    if not found or len(found) < 2:
        return None
    told = "; ".join(f"{clean(one['module'])} {one['cka']:.2f}" for one in found)
    return depth([one["cka"] for one in found], told=f"CKA by depth: {told}")


def adjustments_table(found: Found) -> Stacked | None:
    if not found or not found["options"]:
        return None
    done = {one["told"] for one in found["done"]}
    rows = [
        (
            clean(one["says"]),
            f"{one['milliseconds']:.3g}" if one["milliseconds"] is not None else "",
            count(one["macs"]),
            f"{one['loss']:.3g}" if one["loss"] is not None else "",
            "done" if any(told.startswith(f"{one['says']},") for told in done) else "",
        )
        for one in found["options"]
    ]
    titles = ("change", "ms with it", "MACs with it", "calibration loss", "in the walk")
    return Stacked(
        title="Each alone, fitted in closed form", headings=titles, rows=rows, words=("in the walk",)
    )


def steps_table(steps: Sequence[Mapping[str, Any]]) -> Stacked:
    rows = [(clean(one["name"]), f"{one['seconds']:.1f}") for one in steps]
    rows.append(("all", f"{sum(one['seconds'] for one in steps):.1f}"))
    return Stacked(title="Steps", headings=("step", "seconds"), rows=rows)


def facts_table(run: Mapping[str, Any]) -> Stacked:
    rows = [(clean(name), clean(value)) for name, value in run["facts"]]
    return Stacked(title="What identifies the run", headings=("what", "value"), rows=rows, words=("value",))
