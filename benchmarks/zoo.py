"""Prune every network of zoo.txt to half its units, prove it, and write the table zoo.md.

Run with `make zoo` or `python -m benchmarks.zoo`. One process per network, so that one failure spoils nothing.
Finished networks are kept in zoo.json and skipped the next time; see `--help` for running some of them again.
"""

import argparse
import importlib
import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.networks import library
from benchmarks.zoo_table import DONE, table
from benchmarks.zoo_worker import CPU_SECONDS, limit_cpu, measure_one

HERE = Path(__file__).parent
STORE = HERE / "zoo.json"
PACKAGES = {"torchvision": "torchvision.models", "smp": "segmentation_models_pytorch", "own": "torch"}
WALL_SECONDS = 4 * CPU_SECONDS  # a shared machine gives a process a part of its time only


def listed() -> list[str]:
    """Every `prefix:name` of zoo.txt, in order."""
    lines = (HERE / "zoo.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@dataclass(slots=True)
class Run:
    """One network in a process of its own, forked from this one so that no library is imported twice."""

    spec: str
    process: Any
    answer: Connection
    deadline: float

    @staticmethod
    def start(spec: str) -> "Run":
        answer, ours = Pipe(duplex=False)
        process = get_context("fork").Process(target=answer_one, args=(spec, ours), daemon=True)
        process.start()
        ours.close()
        return Run(spec, process, answer, time.monotonic() + WALL_SECONDS)

    def finished(self) -> dict[str, Any] | None:
        """The network's row, or None while it runs."""
        if self.answer.poll():
            try:
                return self._ended(self.answer.recv())
            except EOFError:
                self.process.join()
        if self.process.exitcode is not None:
            over = self.process.exitcode == -signal.SIGXCPU
            return self._ended(
                f"no answer in {CPU_SECONDS} CPU seconds" if over else f"exit code {self.process.exitcode}"
            )
        if time.monotonic() > self.deadline:
            self.process.kill()
            return self._ended(f"no answer in {WALL_SECONDS} s")
        return None

    def _ended(self, row: dict[str, Any] | str) -> dict[str, Any]:
        self.process.join()
        self.answer.close()
        return {"status": f"failed: {row}"} if isinstance(row, str) else row


def answer_one(spec: str, answer: Connection) -> None:
    limit_cpu()
    try:
        row: dict[str, Any] | str = measure_one(spec)
    except Exception as error:
        row = f"{type(error).__name__}: {error}"
    answer.send(row)


def run_all(specs: list[str], jobs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as they are finished, `jobs` at a time."""
    waiting, running = specs[::-1], list[Run]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(Run.start(waiting.pop()))
        for run in list(running):
            row = run.finished()
            if row is not None:
                running.remove(run)
                yield run.spec, row
        time.sleep(0.02)


def preload(specs: list[str]) -> None:
    """Import and warm up once what every network needs; the processes forked later share it."""
    import torch

    import penjing as pj

    torch.set_num_threads(1)
    for prefix in {spec.partition(":")[0] for spec in specs}:
        library(prefix)
        importlib.import_module(PACKAGES.get(prefix, prefix))
    layers = (torch.nn.Conv2d(3, 8, 1), torch.nn.BatchNorm2d(8), torch.nn.GELU(), torch.nn.LayerNorm(4))
    pj.prune(
        torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 2, 1)).eval(), torch.randn(1, 3, 4, 4), ratio=0.5
    )


def wanted(spec: str, options: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> bool:
    if options.library and spec.partition(":")[0] != options.library:
        return False
    if options.only:
        return fnmatch(spec, options.only) or fnmatch(spec.partition(":")[2], options.only)
    if options.failed:
        return spec in rows and rows[spec]["status"] not in DONE
    return options.fresh or spec not in rows


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time (default 2)")
    parser.add_argument("--fresh", action="store_true", help="run again what is finished")
    parser.add_argument("--failed", action="store_true", help="run again what was not verified")
    parser.add_argument(
        "--only", metavar="PATTERN", help="run what matches, such as 'timm:*vit*', finished or not"
    )
    parser.add_argument("--library", metavar="PREFIX", help="run this library only")
    return parser.parse_args()


def main() -> int:
    options = read_options()
    rows = json.loads(STORE.read_text()) if STORE.exists() else {}
    todo = [spec for spec in listed() if wanted(spec, options, rows)]
    preload(todo)
    for spec, row in run_all(todo, options.jobs):
        rows[spec] = row
        print(f"{spec}: {row['status']}", flush=True)
        STORE.write_text(json.dumps(rows, indent=1))
    rows = {spec: rows[spec] for spec in listed() if spec in rows}
    (HERE / "zoo.md").write_text(table(rows))
    return int(any(row["status"] not in DONE for row in rows.values()))


if __name__ == "__main__":
    raise SystemExit(main())
