"""Accuracy at equal measured latency: the second half of quality.py; writes quality_latency.md.

From the transferred networks of quality.py. Every way has to bring the network to the same share of its milliseconds,
measured in turns with the whole network on this machine, and is then recovered for the same CPU seconds: Penjing's
widths by loss per millisecond, the same criterion with one ratio for all layers and with a global ranking, and
torch-pruning's method that was best at half the MACs, whose ratio is searched by bisection of measured times. One file
per row below --out, so that a run goes on where it was stopped.
"""

import argparse
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

import penjing as pj
from benchmarks.quality_adjusted import cut_with_adjustments
from benchmarks.quality_latency_table import page
from benchmarks.quality_ours import Cut
from benchmarks.quality_pairs import PAIRS, Case, Pair, open_case
from benchmarks.quality_peer import PEER, Peer, prepared_for
from benchmarks.quality_recovery import recovered
from penjing.measure import Timekeeper
from penjing.pipeline._files import read_json, write_json
from penjing.recover import evaluate, rebuild
from penjing.search import DEFAULT_GRANULARITY

HERE = Path(__file__).parent
BATCH = 8
ROUND_TO = 8
NEAR = 0.95  # of the latency asked: what either side's network must take to be at equal latency
TRIES = 10
AGAIN = 5  # independent measurements of what came out
# The peer's best after recovery at half the MACs, seeds 0 to 2 of quality.md.
PEERS: Mapping[str, str] = {
    "lite0-mnist5k": "tp-taylor-uniform",
    "lite0-emoji": "tp-taylor-isomorphic-inner",
    "resnet18-fashion": "tp-magnitude-uniform-inner",
    "minilm-trec": "tp-taylor-uniform-inner",
    "minilm-news": "tp-taylor-uniform-inner",
    "resnet10t-finals": "tp-activation-uniform",
}

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """Penjing's criterion for the pair's task in one scope, refitted in closed form."""

    name: str

    def cut(self, case: Case, share: float, keeper: Timekeeper) -> Cut:
        options = case.recipe.steps.prune
        model, plan = pj.prune(
            case.copy(),
            case.example,
            budget=f"latency<={share}x",
            criterion=options.criterion,
            scope=self.name,
            granularity=options.granularity or DEFAULT_GRANULARITY,
            round_to=ROUND_TO,
            calibration=case.calibration(),
            loss=case.task.loss,
            batch_size=BATCH,
            threads=1,
            runtime=keeper.runtime,
            seed=case.seed,
        )
        begun = time.process_time()
        rebuild(model, case.copy().eval(), plan, case.task, case.data, when="auto", seed=case.seed)
        return Cut(model=model, plan=plan, seconds=time.process_time() - begun)


@dataclass(frozen=True, slots=True)
class Bisected:
    """The peer's best method; the slowest of its networks that is within the latency."""

    def cut(self, case: Case, share: float, keeper: Timekeeper) -> Cut:
        peer = replace(PEER[PEERS[case.pair.name]], round_to=ROUND_TO)
        prepared = prepared_for(peer.importance, case)
        low, high, best, taken = 0.0, 1.0, None, 0.0
        for _ in range(TRIES):
            ratio = (low + high) / 2
            model = _tried(peer, case, prepared, ratio)
            found = keeper.time(model, operators=False).milliseconds / keeper.milliseconds if model else 0.0
            if found > share:
                low = ratio
                continue
            high = ratio
            if model and found > taken:
                best, taken = model, found
            if taken >= NEAR * share:
                break
        if best is None:
            raise RuntimeError(f"no ratio reaches {share:g}x of the milliseconds")
        return Cut(model=best)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Widths as `Scope("loss")` cuts them, after adjustments where those win."""

    def cut(self, case: Case, share: float, keeper: Timekeeper) -> Cut:
        cut, about = cut_with_adjustments(case, share, keeper, BATCH)
        ABOUT[id(cut.model)] = about
        return cut


ABOUT: dict[int, dict[str, Any]] = {}  # what else is to be told of a network


def _tried(peer: Peer, case: Case, prepared: nn.Module, ratio: float) -> nn.Module | None:
    """None where the ratio breaks the peer or its network: it is taken for too large."""
    try:
        return peer.at(case, prepared, ratio)
    except Exception:
        return None


WAYS: Mapping[str, Scope | Bisected | Adjusted] = {
    "loss": Scope("loss"),
    "peer": Bisected(),
    "uniform": Scope("uniform"),
    "global": Scope("global"),
    "adjusted": Adjusted(),
}


def make(case: Case, way: str, share: float, runtime: str) -> Row:
    """The row; a failure is told in place of figures."""
    row: Row = {"pair": case.pair.name, "seed": case.seed, "way": way, "share": share, "runtime": runtime}
    try:
        with Timekeeper(
            reference=case.copy().eval(),
            example_inputs=case.example,
            runtime=runtime,
            batch_size=BATCH,
            threads=1,
        ) as keeper:
            begun = time.process_time()
            cut = WAYS[way].cut(case, share, keeper)
            spent = time.process_time() - begun
            took = [keeper.time(cut.model, operators=False).milliseconds for _ in range(AGAIN)]
            row |= {"milliseconds": keeper.milliseconds, "measured": median(took) / keeper.milliseconds}
            row |= {"lowest": min(took) / keeper.milliseconds, "highest": max(took) / keeper.milliseconds}
        row |= ABOUT.pop(id(cut.model), {})
        row |= {"macs_ratio": case.ratio(cut.model), "cut_seconds": round(spent, 1)}
        row |= {"before": case.accuracy(cut.model, "certification")} | recovered(case, cut)
        found = evaluate(cut.model, case.task, case.data, "certification")
        right = (found["predictions"] == found["targets"]).int().tolist()
        return row | {
            "accuracy": float(found["accuracy"]),
            "right": "".join(map(str, right)),
            "status": "done",
        }
    except Exception as error:
        traceback.print_exc(limit=-3)
        return row | {"status": f"fails: {type(error).__name__}: {error}"[:400]}


def work(
    pairs: Sequence[Pair],
    seeds: Sequence[int],
    shares: Sequence[float],
    runtime: str,
    out: Path,
    ways: Sequence[str],
) -> None:
    """Every missing row, each written at once."""
    for seed, pair in ((seed, pair) for seed in seeds for pair in pairs):
        todo = list(_missing(pair, seed, shares, runtime, out, ways))
        case = open_case(pair, seed, out) if todo else None
        for way, share, file in todo:
            assert case is not None
            row = make(case, way, share, runtime)
            write_json(file, row)
            print({name: value for name, value in row.items() if name != "right"}, flush=True)


def _missing(
    pair: Pair, seed: int, shares: Sequence[float], runtime: str, out: Path, ways: Sequence[str]
) -> Iterator[tuple[str, float, Path]]:
    for share in shares:
        for way in ways:
            file = out / f"{pair.name}-{seed}.{way}.{share:g}.{runtime}.latency.json"
            if not file.exists():
                yield way, share, file


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quality"), help="where the rows are kept")
    parser.add_argument(
        "--only", metavar="PATTERN", nargs="*", default=["*"], help="pairs, such as 'lite0-*'"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5], help="of the whole network's time")
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="of the ways, these")
    parser.add_argument("--page", type=Path, default=HERE / "quality_latency.md", help="the table")
    parser.add_argument("--page-only", action="store_true", help="write the table of what there is")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.page_only:
        pairs = [pair for pair in PAIRS if any(fnmatch(pair.name, pattern) for pattern in given.only)]
        work(pairs, given.seeds, given.shares, given.runtime, given.out, given.ways)
    rows = [read_json(path) for path in sorted(given.out.glob("*.latency.json"))]
    bases = [read_json(path) for path in sorted(given.out.glob("*.base.json"))]
    given.page.write_text(
        page(PAIRS, bases, rows, PEERS, batch=BATCH, peer=version("torch-pruning")), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
