"""CPU seconds from a network to a smaller one, side by side with torch-pruning in one run; writes engine.md.

Run with `make bench`, over the networks of zoo.txt at the sizes they were published with, then at the list's own small
sizes (`--library`, `--only` for some of them). Ours: trace, plan, surgery and strict re-trace, then also with the
float64 proof. Peer: its graph and one step of its group-magnitude pruner at the same ratio, with the number of heads
of every attention told to it; it proves nothing. A network counts where the peer's result still runs and has lost
parameters. `--again` measures what is finished once more, but tells of the peer's failures from the run before: some
of them are networks on which it does not end.
"""

import argparse
import copy
import json
import signal
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from benchmarks.engine_table import table
from benchmarks.forked import Row, run_all
from benchmarks.networks import build, published
from benchmarks.zoo import listed

HERE = Path(__file__).parent
STORE = HERE / "engine.json"
REPEATS = 3
CPU_LIMIT = 60  # for one run of one side; the peer does not end on every network


def built(spec: str) -> tuple[Any, Any] | None:
    import torch

    plain = spec.removesuffix(published.MARK)
    if plain == spec:
        return build(spec)
    torch.manual_seed(0)
    prefix, _, name = plain.partition(":")
    return published.build(prefix, name)


def measure_one(spec: str, repeats: int = REPEATS, failing: Mapping[str, str] = MappingProxyType({})) -> Row:
    """Medians of CPU seconds over interleaved repeats; a failure is told in place of the seconds."""
    found = built(spec)
    if found is None:
        return {"status": "as listed"}
    model, example = found
    signal.signal(signal.SIGPROF, _over)
    runs: dict[str, list[float | str]] = {"proven": [], "unproven": [], "peer": [], "bare": [], "trace": []}
    if spec in failing:
        runs["peer"].append(failing[spec])
    for _ in range(repeats):
        runs["bare"].append(timed(bare, model, example))
        runs["trace"].append(timed(trace, model, example))
        runs["unproven"].append(timed(ours, model, example, False))
        runs["proven"].append(timed(ours, model, example, True))
        if not any(isinstance(r, str) for r in runs["peer"]):
            runs["peer"].append(timed(peer, model, example))
    return {"status": "done", **{name: failure(row) or middle(row) for name, row in runs.items()}}


def failure(row: Sequence[float | str]) -> str | None:
    return next((r for r in row if isinstance(r, str)), None)


def middle(row: list[float | str]) -> float:
    return statistics.median(r for r in row if not isinstance(r, str))


def timed(run: Callable[..., Callable[[], None]], model: Any, example: Any, *args: Any) -> float | str:
    """CPU seconds of what `run` prepares on a copy of its own."""
    try:
        work = run(copy.deepcopy(model), example, *args)
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT)
        started = time.process_time()
        work()
        return time.process_time() - started
    except Exception as error:
        return f"fails: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _over(number: int, frame: Any) -> None:
    raise TimeoutError(f"no end within {CPU_LIMIT} CPU seconds")


def bare(model: Any, example: Any) -> Callable[[], None]:
    """The network's own forward on meta tensors under a dispatch mode that does nothing."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map_only

    class Nothing(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    on_meta = model.to("meta")
    inputs = tree_map_only(torch.Tensor, lambda t: t.to("meta"), example)

    def work() -> None:
        with torch.no_grad(), Nothing():
            call(on_meta, inputs)

    return work


def call(model: Any, example: Any) -> Any:
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def trace(model: Any, example: Any) -> Callable[[], None]:
    import penjing as pj

    def work() -> None:
        pj.trace(model, example)

    return work


def ours(model: Any, example: Any, proof: bool) -> Callable[[], None]:
    import penjing as pj
    from penjing.search import _prove
    from penjing.surgery import check

    def checking(*args: Any, exact: bool = True, **kwargs: Any) -> Any:
        return check(*args, exact=exact and proof, **kwargs)

    def work() -> None:
        with patch.object(_prove, "check", checking):
            pj.prune(model, example, ratio=0.5)

    return work


def peer(model: Any, example: Any) -> Callable[[], None]:
    import torch
    import torch_pruning as tp

    heads = heads_of(model)
    before = sum(p.numel() for p in model.parameters())
    ignored = outputs_of(model, example)

    def work() -> None:
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=ignored,
            num_heads=heads,
        )
        pruner.step()
        tell_heads(model, pruner.num_heads)
        with torch.no_grad():
            call(model, example)
        if sum(p.numel() for p in model.parameters()) >= before:
            raise RuntimeError("nothing was pruned")

    return work


def outputs_of(model: Any, example: Any) -> list[Any]:
    """Layers whose outputs are the network's outputs: the peer is told to leave them."""
    import penjing as pj

    contract = {
        f.parameter for f in pj.trace(model, example).frozen if "network output" in f.cause and f.dim == 0
    }
    return [m for path, m in model.named_modules() if f"{path}.weight" in contract]


HEADS = ("num_heads", "num_attention_heads", "n_heads")
FUSED = ("qkv", "query_key_value", "c_attn")
QUERIES = (
    "qkv",
    "q",
    "k",
    "v",
    "query",
    "key",
    "value",
    "q_proj",
    "k_proj",
    "v_proj",
    "query_key_value",
    "c_attn",
)


def heads_of(model: Any) -> dict[Any, int]:
    """Projection -> number of heads, for every module that keeps such a number beside such projections."""
    found = {}
    for module in model.modules():
        count = next(
            (
                getattr(module, n)
                for n in ("num_heads", "num_attention_heads", "n_heads")
                if hasattr(module, n)
            ),
            0,
        )
        for name in QUERIES:
            layer = getattr(module, name, None)
            if isinstance(count, int) and count and getattr(layer, "weight", None) is not None:
                found[layer] = count
    return found


def tell_heads(model: Any, heads: Mapping[Any, int]) -> None:
    """What users write by hand after the peer's step: the numbers attention modules keep about themselves."""
    for module in model.modules():
        for name in QUERIES:
            layer = getattr(module, name, None)
            if layer in heads and hasattr(layer, "out_features"):
                count, width = (
                    heads[layer],
                    layer.out_features // (3 if name in ("qkv", "query_key_value", "c_attn") else 1),
                )
                own = {
                    "num_heads": count,
                    "num_attention_heads": count,
                    "n_heads": count,
                    "all_head_size": width,
                }
                own |= {"head_dim": width // count, "attention_head_size": width // count, "embed_dim": width}
                for key, value in own.items():
                    if isinstance(getattr(module, key, None), int):
                        setattr(module, key, value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fresh", action="store_true", help="run again what is finished")
    parser.add_argument("--again", action="store_true", help="the same, but for the peer's known failures")
    parser.add_argument("--only", metavar="PATTERN", help="run what matches, such as 'timm:*vit*'")
    parser.add_argument("--library", metavar="PREFIX", help="run this library only")
    parser.add_argument("--repeats", type=int, default=REPEATS, help=f"runs of each side (default {REPEATS})")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (default 1: one clock each)")
    options = parser.parse_args()
    rows: dict[str, Row] = json.loads(STORE.read_text()) if STORE.exists() and not options.fresh else {}
    everything = [f"{spec}{mark}" for mark in (published.MARK, "") for spec in listed()]
    todo = [
        spec
        for spec in everything
        if (options.again or spec not in rows)
        and options.library in (None, spec.partition(":")[0])
        and fnmatch(spec, options.only or "*")
    ]
    failing = {spec: row["peer"] for spec, row in rows.items() if isinstance(row.get("peer"), str)}
    measure = partial(measure_one, repeats=options.repeats, failing=failing)
    for spec, row in run_all(todo, measure, options.jobs):
        rows[spec] = row
        print(f"{spec}: {row}", flush=True)
        STORE.write_text(json.dumps(rows, indent=1))
    (HERE / "engine.md").write_text(table({spec: rows[spec] for spec in everything if spec in rows}))


if __name__ == "__main__":
    main()
