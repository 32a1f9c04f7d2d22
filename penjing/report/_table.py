"""A run's figures in words and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.core import clean, cut
from penjing.report._layout import Stacked
from penjing.report._units import size, spread

LABEL = 20  # characters of a class name
SIZES = ("network", "params", "MACs", "size", "latency", "memory")
SCORES = {
    "accuracy": "accuracy",
    "macro_recall": "macro recall",
    "f1": "entity F1",
    "wer": "WER",
    "cer": "CER",
}
WORST = "worst class"


def verdict(metrics: Mapping[str, Any]) -> str:
    """One sentence about the slim network; a reference that guesses and a control that does as well come first, zeros
    among its weights last.

    It compares counts and measured means; it is no statistical test.
    """
    rows = {row["name"]: row for row in metrics["rows"]}
    slim, reference = rows["slim"], rows[metrics["reference"]]
    metric, larger = _headline(metrics)
    score = _score(slim, reference, metric)
    parts = [f"{slim['macs'] / reference['macs']:.0%} of the MACs", *_speed(slim), score]
    told = f"slim: {', '.join(parts)}{_within(metrics, slim, reference)}{_zeros(metrics.get('sparsity'))}"
    return _guess(reference) + "".join(_rivals(rows, metric, larger)) + told


def _within(metrics: Mapping[str, Any], slim: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """How the loss on the split compares with the margin."""
    margin, certificate = metrics.get("margin"), metrics.get("certificate")
    if margin is None:
        return ""
    if certificate is not None:
        return f"; {certificate['verdict']} at a margin of {margin:g} points: {clean(certificate['why'])}"
    metric, larger = _headline(metrics)
    lost = 100 * (reference[metric] - slim[metric]) * (1 if larger else -1)
    how = "within" if lost <= margin + 1e-9 else "beyond"
    split = f"on {metrics['data']['n']} {metrics['data']['split']} examples"
    return f"; {how} the margin of {margin:g} points {split} (measured, no certificate)"


def headings(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """The table's columns: the metric that counts comes first among those that a network was scored by."""
    return (*SIZES, *(SCORES[key] for key in _scores(metrics)), *((WORST,) if _by_class(metrics) else ()))


def _scores(metrics: Mapping[str, Any]) -> list[str]:
    known = [key for key in SCORES if any(row.get(key) is not None for row in metrics["rows"])]
    return sorted(known, key=lambda key: key != _headline(metrics)[0])


def _by_class(metrics: Mapping[str, Any]) -> bool:
    return any(row.get("per_class") for row in metrics["rows"])


def _headline(metrics: Mapping[str, Any]) -> tuple[str, bool]:
    """The metric that counts, and whether larger is better."""
    found = metrics.get("headline") or {"metric": "accuracy", "larger_is_better": True}
    return found["metric"], found["larger_is_better"]


def _guess(reference: Mapping[str, Any]) -> str:
    """A warning where the reference learnt nothing: macro recall within a tenth of the way from 1 / classes to 1."""
    if reference.get("macro_recall") is None or not reference["per_class"]:
        return ""
    chance = 1 / len(reference["per_class"])
    if reference["macro_recall"] > chance + 0.1 * (1 - chance):
        return ""
    return (
        f"{reference['name']} is no better than guessing (macro recall {reference['macro_recall']:.1%}), so these "
        "accuracies say nothing: try pretrained weights, a smaller lr or more epochs. "
    )


def cells(metrics: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """One tuple of texts per row of the table, in the order of `headings`."""
    scores, by_class = _scores(metrics), _by_class(metrics)
    return tuple(_cells(row, scores, by_class) for row in metrics["rows"])


def table(metrics: Mapping[str, Any]) -> Stacked:
    """The figures: one table where it fits the terminal, else several below each other."""
    return Stacked(title=_title(metrics), headings=headings(metrics), rows=cells(metrics))


def _title(metrics: Mapping[str, Any]) -> str:
    data, latency = metrics["data"], metrics["rows"][0]["latency_ms"]
    name, reference = clean(data["name"]), clean(metrics["reference"])
    where = f"{latency['device']}, {latency['runtime']}, {latency['threads']} threads"
    return (
        f"{name}: {data['n']} {data['split']} examples; "
        f"latency at batch {latency['batch_size']} ({where}); reference: {reference}"
    )


def _rivals(rows: Mapping[str, Any], metric: str, larger: bool) -> list[str]:
    """A sentence for every control that does at least as well as the slim network in no more time."""
    slim, said = rows["slim"][metric], []
    for name, row in rows.items():
        beside = row.get("against_slim")
        ahead = (
            (row[metric] - slim if larger else slim - row[metric]) if name.startswith("control:") else -1.0
        )
        if ahead >= 0 and not (beside and ahead > 0 and not beside["wins"]):
            how = "beats" if ahead > 0 else "does as well as"
            by = f"{SCORES[metric]} {row[metric]:.1%} vs {slim:.1%}{_margin(beside)}"
            said.append(f"{clean(name)}{_of(row)} {how} slim ({by}). ")
    return said


def _of(row: Mapping[str, Any]) -> str:
    """What a ready-made rival is."""
    if "source" not in row:
        return ""
    return f", {clean(row['source'])} ({'pretrained' if row['pretrained'] else 'from scratch'}),"


def _margin(beside: Mapping[str, Any] | None) -> str:
    """How far ahead a control is, with the interval, and its time."""
    if beside is None:
        return ""
    span = ""
    if beside["low"] is not None:
        span = f" [{100 * beside['low']:+.1f}, {100 * beside['high']:+.1f}]"
    return f", {100 * beside['difference']:+.1f} points{span} at {beside['time_share']:.2f}x its time"


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


def _zeros(sparsity: Mapping[str, Any] | None) -> str:
    """What zeros save on disk, and the run time measured before and after them."""
    if not sparsity:
        return ""
    before = sparsity["dense"]
    return (
        f"; {sparsity['share']:.0%} of its parameters are zero: {size(sparsity['zipped_bytes'])} zipped (without zeros "
        f"{size(before['zipped_bytes'])}), {size(sparsity['packed_bytes'])} packed, {', '.join(_as_fast(sparsity))}"
    )


def _as_fast(sparsity: Mapping[str, Any]) -> list[str]:
    return [
        f"{timed['ratio']:.2f}x as fast at batch {key.removeprefix('batch_')} ({timed['low']:.2f}-{timed['high']:.2f})"
        for key, timed in sparsity["time"].items()
    ]


def _score(slim: Mapping[str, Any], reference: Mapping[str, Any], metric: str) -> str:
    points = 100 * (slim[metric] - reference[metric])
    return f"{SCORES[metric]} {slim[metric]:.1%} vs {reference[metric]:.1%} ({points:+.1f} points)"


def _cells(row: Mapping[str, Any], scores: Sequence[str], by_class: bool) -> tuple[str, ...]:
    latency, memory = row["latency_ms"], row.get("peak_memory")
    return (
        clean(row["name"]),
        count(row["params"]),
        count(row["macs"]),
        size(row["size_bytes"]),
        spread(latency["median"], latency["mad"]) if latency else "",
        size(memory["bytes"]) if memory else "",
        *(f"{row[key]:.2%}" if row.get(key) is not None else "" for key in scores),
        *((_worst(row.get("per_class")),) if by_class else ()),
    )


def _worst(per_class: Mapping[str, float | None] | None) -> str:
    known = {label: recall for label, recall in (per_class or {}).items() if recall is not None}
    if not known:
        return ""
    label = min(known, key=lambda key: known[key])
    return f"{cut(clean(label), LABEL)}: {known[label]:.1%}"


def uncertified(run: Mapping[str, Any]) -> str:
    """Why a run, as for `report_page`, has no certificate."""
    if run["recipe"].get("margin") is None:
        return "not asked for a certificate"
    return "no certificate yet" if run.get("unfinished") else "no certificate"


def count(number: float) -> str:
    """A count in the decimal units of budgets.

    >>> count(999), count(3_420_000), count(1.2e10)
    ('999', '3.42M', '12.00G')
    """
    for scale, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.2f}{sign}"
    return f"{number:.0f}"
