"""The page of the latency benchmark."""

from collections.abc import Mapping
from datetime import date
from statistics import median
from typing import Any

import torch

from benchmarks.latency_cases import CASES
from penjing.measure import eta
from penjing.measure._clock import device_name

Rows = Mapping[tuple[str, str, str], Mapping[str, Any]]

HEAD = """# Latency: budgets of milliseconds, asked and measured

{date}, torch {torch}, {device}, one thread, batch 8. `make latency` repeats it. Networks have random weights,
on which time does not depend; target and measured are shares of the whole network's time. Measured anew is
the median of five measurements apart from the search, with the lowest and highest; a target is used well
where the result lies in [0.95, 1] of it. Tries are networks cut and measured by the search; timed are the
networks that its table was learnt from, in brackets how many of them an earlier search had timed. CPU seconds
are those of the whole search. eta is speed-up / (MACs before / MACs after): 1 means that time fell as much as
computation. Compute-bound is the share of the roofline's time (`penjing.measure.roofline`, eager PyTorch,
operator by operator) that computation holds in the whole and in the slim network; the roofline's eta is what
its bounds allow this network. Peer: torch-pruning's uniform magnitude at the same MACs, timed in the same
turns. In eager PyTorch our networks have their batch norms folded, as `penjing shape` hands them over (the whole
network has not); beside it stands the eta without that, and the peer's network as it is and folded by us. ONNX Runtime
folds every network's. Times are CPU time of the one thread.
"""
BUDGETS = (
    "| network | runtime | target | predicted | measured anew | of the target | tries | timed | table's error | CPU s "
    "| MACs | eta | not folded | compute-bound | roofline's eta | peer's MACs | peer's eta | folded |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)
UNSEEN = (
    "| network | runtime | median error | 90th percentile | table's own error | networks timed | CPU s |",
    "|---|---|---|---|---|---|---|",
)


def page(rows: Rows) -> str:
    """Markdown: what networks are, budgets, then predictions of unseen networks."""
    head = HEAD.format(date=date.today(), torch=torch.__version__, device=device_name(torch.device("cpu")))
    names = [f"- {name}: {CASES[name].about}" for name in dict.fromkeys(key[0] for key in rows)]
    budgets = [_budget(key, row) for key, row in rows.items() if key[2] != "unseen"]
    unseen = [_unseen(key, row) for key, row in rows.items() if key[2] == "unseen"]
    return "\n".join(
        [
            head,
            *names,
            "\n## Budgets\n",
            *BUDGETS,
            *budgets,
            "\n## Predictions of networks that the table has not seen\n",
            "Twenty networks of random widths each, drawn with another seed than the table's own.\n",
            *UNSEEN,
            *unseen,
            "",
        ]
    )


def _budget(key: tuple[str, str, str], row: Mapping[str, Any]) -> str:
    name, runtime, share = key
    if row["status"] != "done":
        return f"| {name} | {runtime} | {share} | {_cell(row['status'])} |" + " |" * 14
    taken, reference = row["measured"], row["reference_ms"]
    middle, target = median(taken), row["limit_ms"] / reference
    cells = [
        f"{target:.3f}",
        f"{row['tries'][-1]['predicted_ms'] / reference:.3f}",
        f"{middle:.3f} ({min(taken):.3f}-{max(taken):.3f})",
        f"{middle / target:.3f}",
        str(len(row["tries"])),
        f"{row['networks']} ({row['reused']})",
        f"{row['table_error']:.1%}",
        f"{row['seconds']:.0f}",
        f"{row['macs']:.3f}",
        f"{_eta(middle, row['macs']):.2f}",
        f"{_eta(median(row['unfolded']), row['macs']):.2f}" if runtime == "eager" else "",
        f"{row['roofline']['whole']:.0%}, {row['roofline']['slim']:.0%}",
        f"{_eta(row['roofline']['bound'], row['macs']):.2f}",
        *_peer(row, runtime),
    ]
    return f"| {name} | {runtime} | " + " | ".join(cells) + " |"


def _peer(row: Mapping[str, Any], runtime: str) -> tuple[str, str, str]:
    peer = row["peer"]
    if peer is None:
        return "fails", _cell(row["peer_fails"].partition(":")[0]), ""
    etas = [f"{_eta(median(peer[how]), peer['macs']):.2f}" for how in ("measured", "folded") if how in peer]
    return f"{peer['macs']:.3f}", etas[0], etas[-1] if runtime == "eager" else ""


def _eta(share_of_time: float, share_of_macs: float) -> float:
    return eta(1 / share_of_time, 1_000_000, max(1, round(1_000_000 * share_of_macs)))


def _unseen(key: tuple[str, str, str], row: Mapping[str, Any]) -> str:
    name, runtime, _ = key
    if row["status"] != "done":
        return f"| {name} | {runtime} | {_cell(row['status'])} |" + " |" * 4
    errors = f"{row['median']:.1%} | {row['p90']:.1%} | {row['table_error']:.1%}"
    return f"| {name} | {runtime} | {errors} | {row['networks']} | {row['seconds']:.0f} |"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:120]
