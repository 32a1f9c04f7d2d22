"""One process per network, forked from one that has imported everything, so that one failure spoils nothing."""

import importlib
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.networks import LIBRARIES, PACKAGES, library

CPU_SECONDS = 300
WALL_SECONDS = 4 * CPU_SECONDS  # a shared machine gives a process a part of its time only
Row = dict[str, Any]
Measure = Callable[[str], Row]


@dataclass(slots=True)
class Run:
    """One network in a process of its own, forked from this one so that no library is imported twice."""

    spec: str
    process: Any
    answer: Connection
    deadline: float

    @staticmethod
    def start(spec: str, measure: Measure) -> "Run":
        answer, ours = Pipe(duplex=False)
        process = get_context("fork").Process(target=_answer, args=(spec, measure, ours), daemon=True)
        process.start()
        ours.close()
        return Run(spec, process, answer, time.monotonic() + WALL_SECONDS)

    def finished(self) -> Row | None:
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

    def _ended(self, row: Row | str) -> Row:
        self.process.join()
        self.answer.close()
        return {"status": f"failed: {row}"} if isinstance(row, str) else row


def _answer(spec: str, measure: Measure, answer: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    try:
        row: Row | str = measure(spec)
    except Exception as error:
        row = f"{type(error).__name__}: {error}"
    answer.send(row)


def run_all(specs: Sequence[str], measure: Measure, jobs: int) -> Iterator[tuple[str, Row]]:
    """Rows as they are finished, `jobs` at a time; a failure is a row with its status alone."""
    preload(specs)
    waiting, running = list(specs[::-1]), list[Run]()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(Run.start(waiting.pop(), measure))
        for run in list(running):
            row = run.finished()
            if row is not None:
                running.remove(run)
                yield run.spec, row
        time.sleep(0.02)


def preload(specs: Sequence[str]) -> None:
    """Import and warm up once what every network needs; the processes forked later share it."""
    import torch

    import penjing as pj

    torch.set_num_threads(1)
    for prefix in {spec.partition(":")[0] for spec in specs} & LIBRARIES.keys():
        library(prefix)
        importlib.import_module(PACKAGES.get(prefix, prefix))
    layers = (torch.nn.Conv2d(3, 8, 1), torch.nn.BatchNorm2d(8), torch.nn.GELU(), torch.nn.LayerNorm(4))
    pj.prune(
        torch.nn.Sequential(*layers, torch.nn.Conv2d(8, 2, 1)).eval(), torch.randn(1, 3, 4, 4), ratio=0.5
    )
