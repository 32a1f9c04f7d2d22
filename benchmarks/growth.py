"""How seconds and memory grow from 50 to 1,000 layers; writes growth.md. Run with `make bench`.

Two families: ResNet-50 with ever more bottlenecks, and ViT-S with ever more blocks, on small inputs (the engine's own
cost, not that of convolutions in float64). Each size runs in a process of its own, one thread.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.forked import run_all

HERE = Path(__file__).parent
LAYERS = (50, 100, 200, 400, 1000)
REPEATS = 3


def residual(layers: int) -> tuple[Any, Any]:
    """ResNet-50 with more bottlenecks in its third stage."""
    import torch
    from torchvision.models.resnet import Bottleneck, ResNet

    model = ResNet(Bottleneck, [3, 4, 6 + (layers - 50) // 3, 3])
    return model.eval(), torch.randn(1, 3, 32, 32)


def transformer(layers: int) -> tuple[Any, Any]:
    """ViT-S with four linear layers a block."""
    import timm
    import torch

    kind = timm.models.vision_transformer.VisionTransformer
    model = kind(img_size=32, patch_size=16, embed_dim=384, depth=layers // 4, num_heads=6, num_classes=10)
    return model.eval(), torch.randn(1, 3, 32, 32)


FAMILIES = {"residual": residual, "transformer": transformer}


def measure_one(spec: str) -> dict[str, Any]:
    import torch

    import penjing as pj

    family, _, layers = spec.partition(":")
    torch.manual_seed(0)
    model, example = FAMILIES[family](int(layers))
    held = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    pj.trace(model, example)
    tracemalloc.start(1)
    structure = pj.trace(model, example)
    extra = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    seconds = [timed(model, example) for _ in range(REPEATS)]
    ops = len(structure.graph.calls)
    return {
        "status": "done",
        "ops": ops,
        "trace": statistics.median(s for s, _ in seconds) / ops,
        "prune": statistics.median(p for _, p in seconds) / ops,
        "memory": extra / held,
    }


def timed(model: Any, example: Any) -> tuple[float, float]:
    """CPU seconds of the trace, and of all of `prune` with its proof."""
    import penjing as pj

    started = time.process_time()
    pj.trace(model, example)
    traced = time.process_time()
    pj.prune(model, example, ratio=0.5)
    return traced - started, time.process_time() - traced


def table(rows: dict[str, dict[str, Any]]) -> str:
    import torch

    lines = [
        "# Growth: microseconds per operator call, from 50 to 1,000 layers",
        "",
        f"{date.today()}, torch {torch.__version__}, one thread, CPU time, medians of {REPEATS}. `make bench` repeats "
        "it. Prune includes planning, surgery, the strict re-trace and the float64 proof. Extra memory is the peak of "
        "what a trace allocates (tracemalloc, numpy's arrays included), as a share of the network's own tensors.",
        "",
        "| network | layers | ops | trace, us per op | prune, us per op | extra memory |",
        "|---|---|---|---|---|---|",
    ]
    for spec, row in rows.items():
        family, _, layers = spec.partition(":")
        if row["status"] != "done":
            lines.append(f"| {family} | {layers} | {row['status']} | | | |")
            continue
        cells = f"{row['trace'] * 1e6:.0f} | {row['prune'] * 1e6:.0f} | {row['memory']:.1%}"
        lines.append(f"| {family} | {layers} | {row['ops']} | {cells} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    rows: dict[str, dict[str, Any]] = {}
    specs = [f"{family}:{layers}" for family in FAMILIES for layers in LAYERS]
    for spec, row in run_all(specs, measure_one, 1):
        rows[spec] = row
        print(f"{spec}: {row}", flush=True)
    (HERE / "growth.md").write_text(table(rows))


if __name__ == "__main__":
    main()
