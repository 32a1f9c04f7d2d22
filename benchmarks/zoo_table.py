"""zoo.md: the rows of the zoo as a page for people."""

import importlib.metadata
import platform
import statistics
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

Row = Mapping[str, Any]
Rows = Mapping[str, Row]

DONE = ("verified", "float-only")
STAGES = ("trace", "plan", "surgery", "verify")
PEER = (0.44, 5.2, 41.7)  # torch-pruning 1.6.1 over 285 networks: build + step, nothing proven
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segmentation-models-pytorch",
    "vit-pytorch",
    "x-transformers",
)
SHARE = 0.9  # a network of which less can shrink is listed with its causes


def table(rows: Rows) -> str:
    parts = [
        _head(rows),
        _libraries(rows),
        _seconds(rows),
        _rows(rows),
        _little(rows),
        _skipped(rows),
        _float(rows),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _head(rows: Rows) -> list[str]:
    done = _done(rows)
    worst = max((r["error"] for r in done if r["status"] == "verified"), default=float("nan"))
    return [
        "# The zoo: half of every group's units removed, proven in float64",
        "",
        f"{date.today()}, {', '.join(_versions())}, {platform.processor() or platform.machine()}, one thread. "
        "`make zoo` repeats it.",
        "",
        f"{len(done)} of {len(rows)} networks verified; largest error {worst:.1e} (allowed 1e-9). 'Can shrink' is "
        "the share of parameter elements with a removable index. Seconds are CPU seconds of `pj.prune`: trace, plan "
        "(scores, choice, slices), surgery, verify (re-trace and float64 proof), retries included. The page says "
        "nothing about accuracy or speed of the networks.",
    ]


def _versions() -> Iterable[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue


def _libraries(rows: Rows) -> list[str]:
    lines = [
        "## By library",
        "",
        "| library | networks | verified | can shrink, mean | under 90% | params kept | MACs kept | seconds, median |",
        "|---|---|---|---|---|---|---|---|",
    ]
    prefixes = list(dict.fromkeys(spec.partition(":")[0] for spec in rows))
    for prefix in prefixes:
        lines.append(_summary(prefix, {s: r for s, r in rows.items() if s.partition(":")[0] == prefix}))
    return [*lines, _summary("all", rows)]


def _summary(name: str, rows: Rows) -> str:
    done = _done(rows)
    if not done:
        return f"| {name} | {len(rows)} | 0 | | | | | |"
    mean = {k: statistics.fmean(r[k] for r in done) for k in ("shrinkable", "params_kept", "macs_kept")}
    little = sum(r["shrinkable"] < SHARE for r in done)
    return (
        f"| {name} | {len(rows)} | {len(done)} | {mean['shrinkable']:.1%} | {little} | {mean['params_kept']:.2f} | "
        f"{mean['macs_kept']:.2f} | {statistics.median(map(_total, done)):.2f} |"
    )


def _seconds(rows: Rows) -> list[str]:
    totals = sorted(map(_total, _done(rows)))
    if not totals:
        return []
    ours = statistics.median(totals), totals[min(len(totals) - 1, int(0.95 * len(totals)))], totals[-1]
    slow = [
        f"{s} ({_total(r):.0f} s, {r['macs'] / 1e9:.1f} GMACs)"
        for s, r in rows.items()
        if "error" in r and _total(r) > 20
    ]
    return [
        "## CPU seconds from the network to the verified smaller one",
        "",
        "| | median | 95th percentile | worst |",
        "|---|---|---|---|",
        "| Penjing: trace, plan, surgery and proof | " + " | ".join(f"{v:.2f}" for v in ours) + " |",
        "| torch-pruning 1.6.1: build + step, nothing proven, 285 networks | "
        + " | ".join(f"{v:g}" for v in PEER)
        + " |",
        "",
        f"Over 20 seconds: {', '.join(slow) or 'none'}.",
    ]


def _rows(rows: Rows) -> list[str]:
    lines = [
        "## Networks",
        "",
        "| network | status | groups | can shrink | params kept | GMACs | MACs kept | error | trace s | plan s | "
        "surgery s | verify s | skipped |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for spec, row in rows.items():
        seconds = " | ".join(f"{row['seconds'][s]:.2f}" for s in STAGES) if "seconds" in row else "| | |"
        if row["status"] in DONE:
            lines.append(
                f"| {spec} | {row['status']} | {row['groups']} | {row['shrinkable']:.1%} | "
                f"{row['params_kept']:.2f} | {row['macs'] / 1e9:.2f} | {row['macs_kept']:.2f} | {row['error']:.1e} | "
                f"{seconds} | {len(row['skipped']) or ''} |"
            )
        else:
            lines.append(f"| {spec} | {_cell(row['status'])} | | | | | | | {seconds} | |")
    return lines


def _little(rows: Rows) -> list[str]:
    little = {s: r for s, r in rows.items() if r.get("shrinkable", 1) < SHARE}
    if not little:
        return []
    lines = [
        f"## Under {SHARE:.0%}, and why",
        "",
        "| network | can shrink | what stays, share of all: cause |",
        "|---|---|---|",
    ]
    for spec, row in little.items():
        causes = "<br>".join(f"{share:.1%}: {_cell(cause, 400)}" for cause, share in row["frozen"])
        lines.append(f"| {spec} | {row['shrinkable']:.1%} | {causes} |")
    return lines


def _skipped(rows: Rows) -> list[str]:
    found = [(s, group, cause) for s, r in rows.items() for group, cause in r.get("skipped", ())]
    if not found:
        return ["## Skipped groups", "", "None: every group that was chosen was proven."]
    lines = ["## Skipped groups", "", "| network | group | cause |", "|---|---|---|"]
    return [*lines, *(f"| {spec} | {group} | {_cell(cause)} |" for spec, group, cause in found)]


def _float(rows: Rows) -> list[str]:
    found = [f"{s} ({r['error']:.1e})" for s, r in rows.items() if r["status"] == "float-only"]
    if not found:
        return []
    return ["## Float-only kernels, proven to 1e-5", "", ", ".join(found) + "."]


def _done(rows: Rows) -> list[Row]:
    return [row for row in rows.values() if row["status"] in DONE]


def _total(row: Row) -> float:
    return sum(row["seconds"].values())


def _cell(text: str, length: int = 240) -> str:
    return " ".join(text.replace("|", "/").split())[:length]
