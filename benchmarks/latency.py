"""Budgets of milliseconds: what was asked, predicted and measured; writes latency.md. Run with `make latency`.

Every network is cut to 0.7, 0.5 and 0.35 of its time in eager PyTorch and in ONNX Runtime, on one thread at batch size
8; in eager PyTorch the result's batch norms are folded, as `penjing shape` does, in ONNX Runtime all are. Each result
is measured anew, five times apart, in turns with the whole network and with torch-pruning's network of as many MACs
(uniform magnitude). Then the table's predictions are compared with 20 networks of random widths that it was not learnt
from. A row is one file in the `--out` folder: what is there is not run again."""

import argparse
import copy
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

import penjing as pj
from benchmarks.latency_cases import CASES, Case
from benchmarks.latency_page import page
from benchmarks.quality_peer import Peer
from penjing.measure import Timekeeper, count_macs, roofline
from penjing.search import DEFAULT_GRANULARITY, Aimed, Rounding
from penjing.search._designs import designs, drawn, learn_table
from penjing.search._select import prunable
from penjing.search._timed_before import shelf_for
from penjing.structure import trace
from penjing.surgery import apply, plan_removal

HERE = Path(__file__).parent
SHARES = (0.7, 0.5, 0.35)
RUNTIMES = ("eager", "onnx")
AGAIN = 5  # measurements of a result, each with a reference placed anew
UNSEEN = 20  # networks of random widths that the table is asked about
OTHER = 1234  # the seed they are drawn with


@dataclass(frozen=True, kw_only=True)
class PeerCase:
    """What the peer's search asks of a case."""

    model: nn.Module
    example: Any
    head: str
    heads: bool
    macs: int
    stored: dict[str, Any] = field(default_factory=dict)

    @property
    def pair(self) -> SimpleNamespace:
        return SimpleNamespace(heads=self.heads, stream=())

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.model)

    def ratio(self, model: nn.Module) -> float:
        return count_macs(model, self.example) / self.macs


def budget_row(case: Case, runtime: str, share: float) -> dict[str, Any]:
    """One budget: how it was reached, what its network takes, and what the peer's takes."""
    model, example = case.built()
    told, begun = list[Aimed](), time.process_time()
    slim, _ = pj.prune(
        model,
        example,
        budget=f"latency<={share}x",
        runtime=runtime,
        threads=1,
        folded=runtime == "eager",
        aimed=told.append,
        **case.options,
    )
    seconds, macs = time.process_time() - begun, count_macs(model, example)
    kept = count_macs(slim, example) / macs
    peer = peer_of(case, model, example, macs, kept)
    found = {"seconds": seconds, "macs": kept, "peer": None, **told[0].to_dict()}
    rivals = {"own": slim, **({"peer": peer} if isinstance(peer, nn.Module) else {})}
    if runtime == "eager":
        rivals |= {f"{name}, folded": folded(one, example) for name, one in rivals.items()}
    times = shares_of(model, rivals, example, runtime)
    found["measured"], found["unfolded"] = times.get("own, folded", times["own"]), times["own"]
    found["roofline"] = roofline_of(model, rivals.get("own, folded", slim), example)
    if isinstance(peer, nn.Module):
        found["peer"] = {"macs": count_macs(peer, example) / macs, "measured": times["peer"]}
        found["peer"]["folded"] = times.get("peer, folded", times["peer"])
    else:
        found["peer_fails"] = peer
    return found


def folded(model: nn.Module, example: Any) -> nn.Module:
    return pj.fold_norms(model, example)[0]


def roofline_of(model: nn.Module, slim: nn.Module, example: Any) -> dict[str, float]:
    """Of both networks, operator by operator in eager PyTorch: the shares of the bound that compute holds, and the slim
    one's bound over the whole one's.
    """
    before = roofline(model, example, threads=1)
    after = roofline(slim, example, threads=1, peaks=before.peaks)
    shares = {"whole": before.share("compute"), "slim": after.share("compute")}
    return {**shares, "bound": after.bound_ms / before.bound_ms}


def peer_of(case: Case, model: nn.Module, example: Any, macs: int, share: float) -> nn.Module | str:
    """The peer's network at this share of the MACs, or why there is none."""
    asked = PeerCase(model=model, example=example, head=case.head, heads=case.heads, macs=macs)
    try:
        made = Peer(
            importance="magnitude", scope="uniform", inner=False, round_to=case.options.get("round_to")
        )
        return made.cut(asked, share).model  # type: ignore[arg-type]
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]


def shares_of(
    model: nn.Module, rivals: Mapping[str, nn.Module], example: Any, runtime: str
) -> dict[str, list[float]]:
    """Times over the whole network's, each network in turns with it, from several references placed anew."""
    found: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(AGAIN):
        with Timekeeper(reference=model, example_inputs=example, runtime=runtime, threads=1) as keeper:
            for name, rival in rivals.items():
                taken = keeper.time(rival, operators=False).milliseconds
                found[name].append(taken / keeper.milliseconds)
    return found


def unseen_row(case: Case, runtime: str) -> dict[str, Any]:
    """Predicted and measured milliseconds of random networks that the table has not seen."""
    model, example = case.built()
    structure = trace(model, example)
    groups = prunable(structure, granularity=DEFAULT_GRANULARITY, protect=(), exact_only=False)
    rounding = Rounding(**case.options)
    form = partial(folded, example=example) if runtime == "eager" else None
    keeping = Timekeeper(reference=model, example_inputs=example, runtime=runtime, threads=1, form=form)
    with keeping as keeper:
        shelf = shelf_for(model, structure, groups, rounding, place=keeper.place, example_inputs=example)
        begun = time.process_time()
        table = learn_table(model, structure, groups, keeper, rounding, before=shelf.read()[0])
        shelf.write(table.observations)
        seconds, pairs = time.process_time() - begun, []
        for number, kept in enumerate(designs(structure, groups, rounding, UNSEEN, seed=OTHER)):
            slim = apply(model, plan_removal(structure, drawn(groups, kept, (OTHER, number))))
            taken = keeper.time(slim, operators=False).milliseconds
            pairs.append({"predicted_ms": table.milliseconds(kept), "measured_ms": taken})
    errors = [abs(p["predicted_ms"] / p["measured_ms"] - 1) for p in pairs]
    return {
        "pairs": pairs,
        "median": median(errors),
        "p90": float(np.percentile(errors, 90)),
        "table_error": table.error,
        "networks": len(table.observations),
        "seconds": seconds,
    }


def asked(only: str) -> Iterator[tuple[str, str, str]]:
    """Name, runtime and part of the rows whose `name:runtime:part` matches the pattern."""
    for name in CASES:
        for runtime in RUNTIMES:
            for part in (*map(str, SHARES), "unseen"):
                if fnmatch(f"{name}:{runtime}:{part}", only):
                    yield name, runtime, part


def row_of(name: str, runtime: str, part: str) -> dict[str, Any]:
    try:
        case = CASES[name]
        made = unseen_row(case, runtime) if part == "unseen" else budget_row(case, runtime, float(part))
        return {"status": "done", **made}
    except Exception as error:
        return {"status": f"failed: {type(error).__name__}: {error}"[:400]}


def run(out: Path, only: str = "*") -> dict[tuple[str, str, str], dict[str, Any]]:
    """All rows that the folder holds, after those that match `only` and are not there were added to it."""
    out.mkdir(parents=True, exist_ok=True)
    os.environ["PENJING_CACHE"] = str((out / "cache").resolve())
    torch.set_num_threads(1)
    for name, runtime, part in asked(only):
        path = out / f"{name}-{runtime}-{part}.json"
        if not path.exists():
            row = row_of(name, runtime, part)
            aside = path.with_suffix(".part")
            aside.write_text(json.dumps(row, indent=1))
            os.replace(aside, path)
            print(path.stem, json.dumps({k: v for k, v in row.items() if k != "pairs"}), flush=True)
    paths = {key: out / f"{'-'.join(key)}.json" for key in asked("*")}
    return {key: json.loads(path.read_text()) for key, path in paths.items() if path.exists()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/latency"), help="folder of finished rows")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="rows such as 'lite0:onnx:0.5'")
    parser.add_argument("--page", type=Path, default=HERE / "latency.md", help="where the page goes")
    options = parser.parse_args(arguments)
    options.page.write_text(page(run(options.out, options.only)))


if __name__ == "__main__":
    main()
