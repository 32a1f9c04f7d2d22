"""The page of quality_latency.py: rows to a table."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from benchmarks.quality_pairs import Pair

Rows = Sequence[Mapping[str, Any]]
RIVALS = ("uniform", "global", "peer")
Z95 = 1.959964

ABOUT = """\
# Accuracy at equal measured latency

`python -m benchmarks.quality_latency`, {today}; seeds {seeds}; CPU, one thread, {runtimes}, batch {batch}. Every way
brings the transferred network of quality.md to the same share of its milliseconds, measured in turns with the whole
network, and is then recovered as there for the same CPU seconds. *loss* are widths by loss per millisecond, what
Penjing does; *uniform* is one ratio for all layers and *global* a ranking across layers of the same kind, both with
the same criterion, refit and search of the latency; *peer* is torch-pruning {peer} with its method that was best at
half the MACs, channels in eights as ours, its ratio searched by bisection of measured times. *time* is the share of
the whole network's milliseconds: the median of five further measurements (their extremes). Accuracies are of the
certification split, in percent, after recovery. A difference is *loss* minus the other way, with the 95% interval
over the examples, paired (normal approximation); it does not cover the scatter between seeds.
"""
ADJUSTED = """\

## Widths, and changes of components

*adjusted* is what `penjing shape` does where the method is open: widths alone, and widths after adjustments
(docs/adjustments.md), compared by a brief recovery on the selection split; the best is taken. Where widths alone were
chosen both columns are the same method, and their difference is the scatter between two searches. *adjusted* minus
*loss* with the 95% interval as above.

| pair | runtime | time asked | loss | adjusted | difference | what was done |
|---|---|---|---|---|---|---|"""


def page(
    pairs: Sequence[Pair], bases: Rows, rows: Rows, peers: Mapping[str, str], *, batch: int, peer: str
) -> str:
    told = {
        "today": date.today(),
        "seeds": ", ".join(map(str, sorted({row["seed"] for row in rows}))),
        "runtimes": " and ".join(sorted({row["runtime"] for row in rows})),
        "peer": peer,
        "batch": batch,
    }
    parts = [ABOUT.format(**told), "\n## Differences\n", *_differences(pairs, bases, rows)]
    parts += [ADJUSTED, *_adjusted(pairs, rows), "\n## All rows\n"]
    return "\n".join([*parts, *_all(pairs, rows, peers)]) + "\n"


def _cells(rows: Rows) -> list[tuple[float, str]]:
    return sorted({(row["share"], row["runtime"]) for row in rows}, key=lambda cell: (cell[1], -cell[0]))


def _differences(pairs: Sequence[Pair], bases: Rows, rows: Rows) -> Iterator[str]:
    yield "| pair | runtime | time asked | transferred | loss | minus uniform | minus global | minus peer |"
    yield "|" + "---|" * 8
    for pair in pairs:
        whole = [base["accuracy"] for base in bases if base["pair"] == pair.name]
        for share, runtime in _cells(rows):
            own = {
                (row["way"], row["seed"]): row
                for row in rows
                if (row["pair"], row["share"], row["runtime"]) == (pair.name, share, runtime)
                and row["status"] == "done"
            }
            ours = [row for (way, _), row in own.items() if way == "loss"]
            if ours:
                accuracy = statistics.mean(row["accuracy"] for row in ours)
                cells = [difference(own, rival) for rival in RIVALS]
                base = f"{100 * statistics.mean(whole):.1f}" if whole else ""
                yield _line(pair.name, runtime, f"{share:g}x", base, f"{100 * accuracy:.1f}", *cells)


def difference(own: Mapping[tuple[str, int], Mapping[str, Any]], rival: str) -> str:
    """Mean and 95% interval of the paired differences, in points, over the examples of all seeds.

    >>> row = lambda right: {"right": right}
    >>> difference({("loss", 0): row("1110"), ("peer", 0): row("1010")}, "peer")
    '+25.0 (-24.0 to 74.0)'
    """
    found = [
        int(a) - int(b)
        for (way, seed), row in own.items()
        if way == "loss" and (rival, seed) in own
        for a, b in zip(row["right"], own[rival, seed]["right"], strict=True)
    ]
    if not found:
        return ""
    mean, half = statistics.mean(found), Z95 * statistics.stdev(found) / math.sqrt(len(found))
    return f"{100 * mean:+.1f} ({100 * (mean - half):.1f} to {100 * (mean + half):.1f})"


def _adjusted(pairs: Sequence[Pair], rows: Rows) -> Iterator[str]:
    """A row for every network and budget that both ways were tried on."""
    for pair in pairs:
        for share, runtime in _cells(rows):
            own = {
                (row["way"], row["seed"]): row
                for row in rows
                if (row["pair"], row["share"], row["runtime"]) == (pair.name, share, runtime)
            }
            for seed in sorted({seed for way, seed in own if way == "adjusted"}):
                ours, widths = own["adjusted", seed], own.get(("loss", seed))
                both = {("loss", seed): ours, ("widths", seed): widths}
                able = widths and ours["status"] == widths["status"] == "done"
                apart = difference(both, "widths") if able else ""
                cells = [pair.name, runtime, f"{share:g}x", _score(widths), _score(ours), apart]
                yield _line(*cells, "; ".join(ours.get("did", ())) or "widths alone were chosen")


def _score(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{100 * row['accuracy']:.1f}" if row["status"] == "done" else "out of reach"


def _all(pairs: Sequence[Pair], rows: Rows, peers: Mapping[str, str]) -> Iterator[str]:
    yield "| pair | runtime | time asked | way | seed | time | MACs | before recovery | after | CPU s of the cut |"
    yield "|" + "---|" * 10
    for pair in pairs:
        for row in sorted(
            (row for row in rows if row["pair"] == pair.name),
            key=lambda row: (row["runtime"], -row["share"], row["way"], row["seed"]),
        ):
            way = peers[pair.name] if row["way"] == "peer" else row["way"]
            cells = [pair.name, row["runtime"], f"{row['share']:g}x", way, str(row["seed"])]
            yield _line(*cells, *_figures(row))


def _figures(row: Mapping[str, Any]) -> Sequence[str]:
    if row["status"] != "done":
        return (row["status"].replace("|", "/")[:160], "", "", "", "")
    return (
        f"{row['measured']:.3f}x ({row['lowest']:.3f} to {row['highest']:.3f})",
        f"{row['macs_ratio']:.3f}x",
        f"{100 * row['before']:.1f}",
        f"{100 * row['accuracy']:.1f}",
        f"{row['cut_seconds']:.0f}",
    )


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
