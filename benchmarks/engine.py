"""Seconds from a network to a smaller one, side by side with torch-pruning in one run; writes engine.md.

Run with `make bench` (installs torch-pruning). Ours: trace, plan, surgery, with and without the float64 proof.
Peer: DependencyGraph build and one step of its magnitude pruner at the same ratio; it proves nothing.
"""

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch

import penjing as pj
from penjing.surgery import apply, check, plan_removal

HERE = Path(__file__).parent
NETWORKS = (
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "vgg16_bn",
    "densenet121",
    "googlenet",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "regnet_y_400mf",
    "squeezenet1_1",
    "convnext_tiny",
)


def ours(model: torch.nn.Module, example: torch.Tensor, proof: bool) -> None:
    structure = pj.trace(model, example)
    halves = {
        g.name: range(len(g) // 2) for g in structure.groups if g.granularity == "channel" and len(g) > 1
    }
    plan = plan_removal(structure, halves)
    outcome = check(model, apply(model, plan), structure, plan, example, exact=proof)
    if not outcome.passed:
        raise RuntimeError(outcome.cause)


def peer(model: torch.nn.Module, example: torch.Tensor) -> None:
    import torch_pruning

    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=[
            m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1000
        ],
    )
    pruner.step()
    with torch.no_grad():
        model(example)


def timed(run: Callable[..., None], model: torch.nn.Module, *args: Any) -> float | str:
    work = copy.deepcopy(model)
    started = time.process_time()
    try:
        run(work, *args)
    except Exception as error:
        return f"fails: {type(error).__name__}"
    return time.process_time() - started


def medians(name: str, repeats: int) -> dict[str, float | str]:
    """Medians over interleaved repeats; the first failure is kept as text."""
    model = pj.load_source(f"torchvision:{name}").model
    example = torch.randn(1, 3, 224, 224)
    runs: dict[str, list[float | str]] = {"proven": [], "unproven": [], "peer": []}
    for _ in range(repeats):
        runs["proven"].append(timed(ours, model, example, True))
        runs["unproven"].append(timed(ours, model, example, False))
        runs["peer"].append(timed(peer, model, example))
    return {
        k: next((r for r in v if isinstance(r, str)), None) or statistics.median(v) for k, v in runs.items()
    }  # type: ignore[type-var]


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines, with_proof, without = [], [], []
    for name in NETWORKS:
        row = medians(name, options.repeats)
        shown = {k: v if isinstance(v, str) else f"{v:.2f}" for k, v in row.items()}
        proven, unproven, theirs = row["proven"], row["unproven"], row["peer"]
        ratio = ["", ""]
        if isinstance(proven, float) and isinstance(unproven, float) and isinstance(theirs, float):
            with_proof.append(theirs / proven)
            without.append(theirs / unproven)
            ratio = [f"{with_proof[-1]:.1f}x", f"{without[-1]:.1f}x"]
        lines.append(
            f"| {name} | {shown['proven']} | {shown['unproven']} | {shown['peer']} | {ratio[0]} | {ratio[1]} |"
        )
        print(lines[-1], flush=True)
    head = [
        "# Engine: seconds from a network to a smaller one",
        "",
        f"{date.today()}, torch {torch.__version__}, torch-pruning 1.6.1, one thread, medians of {options.repeats} "
        "interleaved runs of CPU seconds at ratio 0.5. `make bench` repeats it. The peer's column has no proof in it.",
        "",
        f"Geometric mean over {len(without)} networks both can do: {geometric_mean(with_proof):.1f} times faster with "
        f"the float64 proof, {geometric_mean(without):.1f} times without.",
        "",
        "| network | ours, proven | ours, re-traced only | torch-pruning | faster, proven | faster |",
        "|---|---|---|---|---|---|",
    ]
    (HERE / "engine.md").write_text("\n".join([*head, *lines, ""]))


if __name__ == "__main__":
    main()
