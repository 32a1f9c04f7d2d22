"""The page engine.md from the rows of the side-by-side run."""

import math
import statistics
from collections.abc import Mapping, Sequence
from datetime import date

from benchmarks.forked import Row
from benchmarks.networks.published import MARK

HEAD = """# Engine: CPU seconds from a network to a smaller one

{date}, torch {torch}, torch-pruning {peer}, one thread, medians of interleaved runs at ratio 0.5; `make bench` repeats
it. Ours: trace, plan, surgery and strict re-trace ("re-traced"), then with the float64 proof ("proven"). The peer's
seconds are those of its graph, one step and one forward; it proves nothing. "Bare" is the network's forward on meta
tensors under a dispatch mode that does nothing. Seconds say nothing about accuracy.
"""
PUBLISHED = """Classifiers of torchvision and timm on pictures of the size their weights were trained on, and the
text and speech networks of transformers with the defaults of their configuration class, where those stay under 160M
parameters.
"""
LISTED = """The rows of zoo.txt as `make zoo` runs them: small pictures, transformers of two layers and a width of 32
to 64.
"""


def table(rows: Mapping[str, Row]) -> str:
    from importlib.metadata import version

    import torch

    lines = [HEAD.format(date=date.today(), torch=torch.__version__, peer=version("torch-pruning"))]
    rows = {s: r for s, r in rows.items() if r["status"] != "as listed"}
    large = {s.removesuffix(MARK): r for s, r in rows.items() if s.endswith(MARK)}
    small = {s: r for s, r in rows.items() if not s.endswith(MARK)}
    lines += [*part("As published", PUBLISHED, large), *part("As listed in zoo.txt", LISTED, small)]
    return "\n".join(lines)


def part(title: str, said: str, rows: Mapping[str, Row]) -> list[str]:
    if not rows:
        return []
    both = {
        s: r
        for s, r in rows.items()
        if all(isinstance(r.get(k), float) for k in ("proven", "unproven", "peer"))
    }
    lines = [f"## {title}", "", said, *summary(rows, both), *overhead(rows), "", *details(both), ""]
    return [*lines, f"### {title}: where one of the two does not come through", "", *failures(rows, both), ""]


def summary(rows: Mapping[str, Row], both: Mapping[str, Row]) -> list[str]:
    ours = [r for r in rows.values() if isinstance(r.get("proven"), float)]
    theirs = [r for r in rows.values() if isinstance(r.get("peer"), float)]
    found = [
        f"Of {len(rows)} networks ours comes through on {len(ours)}, the peer on {len(theirs)}; both on {len(both)}."
    ]
    if both:
        proven = [r["peer"] / r["proven"] for r in both.values()]
        unproven = [r["peer"] / r["unproven"] for r in both.values()]
        found += [
            "",
            "| against the peer | geometric mean | 5th percentile | median | 95th percentile | slower on |",
            "|---|---|---|---|---|---|",
            spread("re-traced", unproven),
            spread("proven", proven),
            "",
            "| CPU seconds | median | 95th percentile | worst |",
            "|---|---|---|---|",
            seconds("ours, proven, where both do", [r["proven"] for r in both.values()]),
            seconds("ours, proven, all it can do", [r["proven"] for r in ours]),
            seconds("peer", [r["peer"] for r in theirs]),
        ]
    return found


def overhead(rows: Mapping[str, Row]) -> list[str]:
    """Trace, labels and groups against the bare forward, on every network that runs bare on meta tensors."""
    found = [
        r["trace"] / r["bare"]
        for r in rows.values()
        if all(isinstance(r.get(k), float) for k in ("trace", "bare"))
    ]
    if not found:
        return []
    return [
        "",
        f"`pj.trace` takes {share(found, 0.5):.2f} times the bare forward in the median of {len(found)} networks, "
        f"{share(found, 0.95):.2f} times at the 95th percentile.",
    ]


def spread(name: str, ratios: Sequence[float]) -> str:
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    cells = " | ".join(
        f"{x:.2f}x" for x in (mean, share(ratios, 0.05), share(ratios, 0.5), share(ratios, 0.95))
    )
    return f"| {name} | {cells} | {sum(r < 1 for r in ratios)} of {len(ratios)} |"


def seconds(name: str, values: Sequence[float]) -> str:
    return f"| {name} | {share(values, 0.5):.2f} | {share(values, 0.95):.2f} | {max(values):.2f} |"


def share(values: Sequence[float], part: float) -> float:
    """The value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def details(both: Mapping[str, Row]) -> list[str]:
    lines = [
        "| network | bare | re-traced | proven | peer | faster, re-traced | faster, proven |",
        "|" + "---|" * 7,
    ]
    for spec, row in both.items():
        own = [
            f"{row[k]:.3f}" if isinstance(row[k], float) else ""
            for k in ("bare", "unproven", "proven", "peer")
        ]
        faster = [f"{row['peer'] / row[k]:.1f}x" for k in ("unproven", "proven")]
        lines.append(f"| {spec} | {' | '.join([*own, *faster])} |")
    return lines


def failures(rows: Mapping[str, Row], both: Mapping[str, Row]) -> list[str]:
    lines = []
    for spec, row in rows.items():
        if spec not in both:
            said = [f"{k}: {str(row[k])[:140]}" for k in ("proven", "peer") if isinstance(row.get(k), str)]
            lines.append(f"- {spec}: {'; '.join(said) or row['status'][:160]}".replace("\n", " "))
    return lines
