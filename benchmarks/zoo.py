"""Prune every network of zoo.txt to half its units, prove it, and write the table zoo.md.

Run with `make zoo`. One process per network, so that one failure spoils nothing; finished networks are kept in
zoo.json and skipped the next time (`--fresh` starts over, `--only NAME` runs one).
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TIMEOUT = 600


def listed() -> list[tuple[str, int]]:
    rows = [line.split() for line in (HERE / "zoo.txt").read_text().splitlines() if line and line[0] != "#"]
    return [(row[0], int(row[1]) if len(row) > 1 else 224) for row in rows]


def measure_one(name: str, size: int) -> dict[str, Any]:
    """Trace, prune at 0.5 and verify one network with random weights; seconds of CPU on one thread."""
    import torch

    import penjing as pj
    from penjing.measure import count_macs, count_params

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = pj.load_source(name).model
    example = torch.randn(1, 3, size, size)
    started = time.process_time()
    structure = pj.trace(model, example)
    traced = time.process_time()
    slim, plan = pj.prune(model, example, ratio=0.5)
    pruned = time.process_time()
    proof = pj.verify(model, slim, plan, example)
    return {
        "status": "verified" if proof.passed else f"failed: {proof.cause}",
        "error": proof.max_error,
        "groups": len(structure.groups),
        "shrinkable": shrinkable(structure, model),
        "params": count_params(slim) / count_params(model),
        "macs": count_macs(slim, example) / count_macs(model, example),
        "skipped": len(plan.skipped),
        "trace_s": traced - started,
        "prune_s": pruned - traced,
    }


def shrinkable(structure: Any, model: Any) -> float:
    """Share of parameter elements with at least one removable index."""
    import torch

    owned: dict[str, torch.Tensor] = {}
    parameters = dict(model.named_parameters())
    for group in structure.groups:
        for slot in group.slots:
            if slot.name in parameters and len(group) > 1:
                mark = owned.setdefault(slot.name, torch.zeros(parameters[slot.name].shape, dtype=torch.bool))
                mark.index_fill_(slot.dim, torch.from_numpy(slot.index.ravel().copy()), True)
    return sum(int(m.sum()) for m in owned.values()) / sum(p.numel() for p in parameters.values())


def run_process(name: str, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", name, str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return {"status": f"no answer in {TIMEOUT} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"status": f"failed: {lines[-1][:200]}"}
    return json.loads(done.stdout.splitlines()[-1])


def table(rows: dict[str, dict[str, Any]]) -> str:
    import timm
    import torch
    import torchvision

    good = [r for r in rows.values() if r["status"] == "verified"]
    lines = [
        "# The zoo: half of every group's units removed, proven in float64",
        "",
        f"{date.today()}, torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}, "
        f"{platform.processor() or platform.machine()}, one thread. `make zoo` repeats it.",
        "",
        f"{len(good)} of {len(rows)} networks verified; largest error {max(r['error'] for r in good):.1e} "
        "(allowed 1e-9). 'Can shrink' is the share of parameter elements with a removable index; the tables say "
        "nothing about accuracy or speed. Seconds of prune include planning, surgery and the float64 proof.",
        "",
        "| network | status | groups | can shrink | params kept | MACs kept | error | trace s | prune s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if row["status"] != "verified":
            lines.append(f"| {name} | {row['status']} | | | | | | | |")
            continue
        lines.append(
            f"| {name} | verified | {row['groups']} | {row['shrinkable']:.1%} | {row['params']:.2f} | "
            f"{row['macs']:.2f} | {row['error']:.1e} | {row['trace_s']:.2f} | {row['prune_s']:.2f} |"
        )
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", nargs=2)
    parser.add_argument("--only")
    parser.add_argument("--fresh", action="store_true")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure_one(options.worker[0], int(options.worker[1]))))
        return 0
    store = HERE / "zoo.json"
    rows = json.loads(store.read_text()) if store.exists() and not options.fresh else {}
    for name, size in listed():
        if options.only not in (None, name) or (name in rows and options.only is None):
            continue
        rows[name] = run_process(name, size)
        print(f"{name}: {rows[name]['status']}", flush=True)
        store.write_text(json.dumps(rows, indent=1))
    rows = {name: rows[name] for name, _ in listed() if name in rows}
    (HERE / "zoo.md").write_text(table(rows))
    return int(any(r["status"] != "verified" for r in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
