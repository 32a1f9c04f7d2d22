"""Accuracy at equal MACs and equal recovery, side by side with torch-pruning; writes quality.md.

For each pair of network and data and each seed one transferred network is made. Either side cuts it to the same share
of its MACs (counted by our counter), by several criteria. A row holds the accuracy on the certification split without
training, as cut and with batch norms re-estimated, and for the best of each side the accuracy after the same recovery
for the same CPU seconds. Penjing's method is chosen on the selection split; the peer's on the certification split, in
its favour. Run with `make quality`; one file per row below --out, so that a run goes on where it was stopped. The data
must have been fetched (`penjing data fetch`).
"""

import argparse
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.quality_ours import OURS, Cut
from benchmarks.quality_pairs import PAIRS, Case, Pair, open_case
from benchmarks.quality_peer import PEER, PEER_DIMS
from benchmarks.quality_recovery import recovered, settled
from benchmarks.quality_table import best_of, chosen, page
from penjing.pipeline._files import read_json, write_json

HERE = Path(__file__).parent
METHODS = {**OURS, **PEER, **PEER_DIMS}
BUDGETS = (0.65, 0.5, 0.25)
# How many (of the peer, of ours) are followed, by stage and by whether it is the first seed. On later seeds the peer
# recovers with what it recovered best with on the first.
COUNTS = {
    ("cut", True): (3, 3),
    ("cut", False): (2, 1),
    ("recovered", True): (2, 1),
    ("recovered", False): (0, 1),
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What a row is about; `stage` is "cut" or "recovered"."""

    pair: str
    seed: int
    method: str
    budget: float
    stage: str

    def file(self, out: Path) -> Path:
        return out / f"{self.pair}-{self.seed}.{self.method}.{self.budget:g}.{self.stage}.json"


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for, and the rows there are."""

    out: Path
    pairs: Sequence[Pair]
    seeds: Sequence[int]
    budgets: Sequence[float]
    methods: Sequence[str]
    asked: bool
    recover: bool

    def rows(self) -> list[Row]:
        return [read_json(path) for path in sorted(self.out.glob("*.json")) if ".base." not in path.name]

    def forget_failures(self) -> None:
        for path in self.out.glob("*.json"):
            if ".base." not in path.name and read_json(path)["status"] != "done":
                path.unlink()

    def todo(self) -> Iterator[Key]:
        """The rows that are missing, the cheap ones of the first seed before all others.

        Later ones depend on the figures of earlier ones, so this looks at the files anew for each.
        """
        first, *later = self.seeds
        stages = ("cut", "recovered") if self.recover else ("cut",)
        turns = [(pair, first, s, budget) for s in stages for budget in self.budgets for pair in self.pairs]
        turns += [
            (pair, seed, stage, budget)
            for seed in later
            for pair in self.pairs
            for stage in stages
            for budget in self.budgets
        ]
        rows = self.rows()
        for pair, seed, stage, budget in turns:
            own = [row for row in rows if row["pair"] == pair.name and row["seed"] == first]
            for method in self._methods(own, pair, seed == first, budget, stage):
                key = Key(pair.name, seed, method, budget, stage)
                if not key.file(self.out).exists():
                    yield key

    def _methods(
        self, rows: Sequence[Row], pair: Pair, first: bool, budget: float, stage: str
    ) -> Sequence[str]:
        """All at the first budget of the first seed, then the best few by `rows`; all of those asked for by name."""
        able = [m for m in self.methods if m not in PEER_DIMS or pair.heads]
        if stage == "recovered" and budget == max(BUDGETS):
            return ()
        if self.asked or (stage == "cut" and first and budget == self.budgets[0]):
            return able
        at = self.budgets[0] if stage == "cut" and first else budget
        peers, ours = COUNTS[stage, first]
        found = [*best_of(rows, "ours", at, ours), *best_of(rows, "peer", at, peers)]
        if stage == "recovered" and not first:
            found.append(chosen(rows, "peer", budget) or "")
        return [method for method in found if method in able]


def make(key: Key, case: Case) -> Row:
    """The row of `key`; a failure is told in place of figures."""
    row: Row = {"pair": key.pair, "seed": key.seed, "method": key.method, "budget": key.budget}
    row |= {"side": "ours" if key.method in OURS else "peer", "stage": key.stage}
    begun = time.process_time()
    try:
        cut: Cut = METHODS[key.method].cut(case, key.budget)
        row |= {"macs_ratio": case.ratio(cut.model), "cut_seconds": round(time.process_time() - begun, 1)}
        row |= {"own_seconds": round(cut.seconds, 1)}
        row |= (
            untrained(case, cut.model, selection=row["side"] == "ours")
            if key.stage == "cut"
            else _trained(case, cut)
        )
        return row | {"status": "done"}
    except Exception as error:
        traceback.print_exc(limit=-3)
        return row | {"status": f"fails: {type(error).__name__}: {error}"[:400]}


def untrained(case: Case, model: nn.Module, *, selection: bool) -> Row:
    """Accuracy as cut, and with batch norms re-estimated (the same where there are none)."""
    whole = settled(case, model)
    found = {"plain": case.accuracy(model, "certification")}
    found["bn"] = found["plain"] if whole is model else case.accuracy(whole, "certification")
    return found | ({"bn_selection": case.accuracy(whole, "selection")} if selection else {})


def _trained(case: Case, cut: Cut) -> Row:
    spent = recovered(case, cut)
    return spent | {"recovered": case.accuracy(cut.model, "certification")}


def work(run: Run) -> None:
    """Every missing row, each written at once."""
    by_name = {pair.name: pair for pair in run.pairs}
    opened = cache(lambda name, seed: open_case(by_name[name], seed, run.out))
    last: Case | None = None
    while (key := next(run.todo(), None)) is not None:
        case = opened(key.pair, key.seed)
        if last is not None and last is not case:
            last.stored.clear()
        row, last = make(key, case), case
        write_json(key.file(run.out), row)
        print({name: value for name, value in row.items() if not name.endswith("selection")}, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quality"), help="where the rows are kept")
    parser.add_argument(
        "--only", metavar="PATTERN", nargs="*", default=["*"], help="pairs, such as 'lite0-*'"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--budgets", type=float, nargs="*", default=list(BUDGETS), help="shares of the MACs")
    parser.add_argument(
        "--methods", metavar="PATTERN", nargs="*", help="every row of these, such as 'tp-taylor-*'"
    )
    parser.add_argument("--no-recovery", action="store_true", help="rows without training alone")
    parser.add_argument("--retry", action="store_true", help="make rows that failed once more")
    parser.add_argument("--page", type=Path, default=HERE / "quality.md", help="the table")
    parser.add_argument("--page-only", action="store_true", help="write the table of what there is")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    run = Run(
        out=given.out,
        pairs=[pair for pair in PAIRS if any(fnmatch(pair.name, pattern) for pattern in given.only)],
        seeds=given.seeds,
        budgets=given.budgets,
        methods=[m for m in METHODS if any(fnmatch(m, pattern) for pattern in given.methods or ["*"])],
        asked=given.methods is not None,
        recover=not given.no_recovery,
    )
    if given.retry:
        run.forget_failures()
    if not given.page_only:
        work(run)
    rows = run.rows()
    met = {(row["pair"], row["seed"]) for row in rows}
    found = [read_json(path) for path in sorted(given.out.glob("*.base.json"))]
    bases = [base for base in found if (base["pair"], base["seed"]) in met]
    told = {
        "peer": version("torch-pruning"),
        "first": COUNTS["cut", True][0],
        "later": COUNTS["cut", False][0],
    }
    given.page.write_text(page(PAIRS, bases, rows, **told), encoding="utf-8")


if __name__ == "__main__":
    main()
