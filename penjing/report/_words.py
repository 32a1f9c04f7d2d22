"""A run as text for the terminal, and several runs beside each other."""

from collections.abc import Iterator, Mapping
from typing import Any

from penjing.core import clean
from penjing.report._certificate import certificate_lines
from penjing.report._layout import Stacked
from penjing.report._page_parts import agreement, disturbed, flips
from penjing.report._page_proof import seeds_told
from penjing.report._table import SCORES, count, table, uncertified, verdict
from penjing.report._units import size, spread


def report_lines(run: Mapping[str, Any]) -> Iterator[str | Stacked]:
    """What report.html says, in lines and tables; `run` as for `report_page`."""
    metrics, explain, stability = run["metrics"], run.get("explain"), run.get("stability")
    if run.get("unfinished"):
        yield clean(run["unfinished"])
    yield verdict({**metrics, "margin": None})
    yield table(metrics)
    if metrics.get("certificate"):
        yield from certificate_lines(metrics["certificate"])
    else:
        yield uncertified(run)
        yield flips(metrics, explain, stability)["told"]
    for found in (disturbed(stability), agreement(explain)):
        if found is not None:
            yield found["told"]
    if seeds := seeds_told(metrics):
        yield seeds
    yield from (f"changed: {clean(text)}" for text in (explain or {}).get("removed", {}).get("changes", ()))


def runs_table(runs: Mapping[str, Mapping[str, Any]]) -> Stacked:
    """A row per run, by its metrics.json: what it was asked, its slim network, and the verdict."""
    titles = (
        "run",
        "model",
        "data",
        "budget",
        "params",
        "MACs",
        "size",
        "latency",
        "faster",
        "score",
        "was",
        "verdict",
    )
    rows = [(clean(name), *_row(metrics)) for name, metrics in runs.items()]
    words = ("model", "data", "budget", "verdict")
    return Stacked(title="Runs", headings=titles, rows=rows, words=words)


def _row(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    rows = {row["name"]: row for row in metrics["rows"]}
    slim, whole = rows["slim"], rows[metrics["reference"]]
    name = metrics.get("headline", {}).get("metric", "accuracy")
    latency, faster = slim["latency_ms"], next(iter(slim.get("speedup", {}).values()), None)
    return (
        clean(metrics["model"]),
        clean(metrics["data"]["name"]),
        clean(metrics["budget"]),
        count(slim["params"]),
        count(slim["macs"]),
        size(slim["size_bytes"]),
        spread(latency["median"], latency["mad"]) if latency else "",
        f"{faster['ratio']:.2f}x" if faster else "",
        f"{SCORES.get(name, name)} {slim[name]:.2%}",
        f"{whole[name]:.2%}",
        metrics.get("certificate", {}).get("verdict", "not asked"),
    )
