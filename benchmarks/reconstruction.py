"""What reconstruction costs: CPU seconds and memory by layers, by positions, and for EfficientNet-Lite0.

Two families of fixed width: residual blocks of two 3x3 convolutions (32 channels, 8x8 pixels) and transformer blocks
(width 64, 4 heads), with random weights and inputs, cut by half. Each figure has a process of its own, one thread. Run
with `make bench`; writes reconstruction.md.
"""

import argparse
import copy
import ctypes
import gc
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.forked import run_all

PAGE = Path(__file__).with_name("reconstruction.md")
REPEATS = 3
BATCH = 1024  # positions of a batch
BLOCKS = (2, 4, 8, 16, 32)
TOKENS = (1024, 4096, 16384, 65536)
FAMILIES = ("residual", "transformer")
AT = {"blocks": 8, "tokens": 8192}
ALL = 1 << 30  # positions, so that every one counts
PIXELS = 96
Row = dict[str, Any]

ABOUT = """\
# What reconstruction costs

{today}, torch {torch}, one thread, CPU seconds, medians of {repeats} (least to most); other work ran on the machine.
`make bench` repeats it. {doc}

*Stated* is `Reconstruction.memory`; *measured* is the most that the process held at once (peak resident size), less
what it held before (after a first one of two examples).
"""


def stack(family: str, blocks: int) -> tuple[Any, Any]:
    """A network and a maker of batches."""
    import torch
    from torch import nn

    if family == "residual":
        from torchvision.models.resnet import BasicBlock

        layers = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        layers += [BasicBlock(32, 32) for _ in range(blocks)]
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
        return nn.Sequential(*layers).eval(), lambda: torch.randn(BATCH // 64, 3, 8, 8)
    from timm.models.vision_transformer import Block

    blocks_ = [Block(64, 4, qkv_bias=True) for _ in range(blocks)]
    return nn.Sequential(*blocks_, nn.LayerNorm(64), nn.Linear(64, 10)).eval(), lambda: torch.randn(
        BATCH // 32, 32, 64
    )


def measure_one(spec: str) -> Row:
    """The row of family:blocks:tokens[:memory], or of lite0:examples."""
    import torch

    import penjing as pj

    torch.manual_seed(0)
    family, *numbers = spec.split(":")
    if family == "lite0":
        return lite0(int(numbers[0]))
    model, batch = stack(family, int(numbers[0]))
    slim, plan = pj.prune(model, batch()[:2], ratio=0.5)
    memory = {"memory": int(numbers[2])} if len(numbers) > 2 else {}
    options = {"positions": ALL, **memory}
    return measured(model, slim, plan, [batch() for _ in range(int(numbers[1]) // BATCH)], options)


def lite0(examples: int) -> Row:
    import timm
    import torch

    import penjing as pj
    from penjing.recover import reestimate_bn

    model = timm.create_model("tf_efficientnet_lite0", num_classes=10).eval()
    batches = [torch.randn(64, 3, PIXELS, PIXELS) for _ in range(examples // 64)]
    reestimate_bn(model, batches[:1], lambda batch: batch)
    slim, plan = pj.prune(model, batches[0][:1], budget="macs<=0.5x")
    return measured(model, slim, plan, batches, {}, REPEATS)


def measured(
    model: Any, slim: Any, plan: Any, batches: Sequence[Any], options: dict[str, Any], repeats: int = REPEATS
) -> Row:
    from penjing.recover import reconstruct

    reconstruct(model, copy.deepcopy(slim), plan, [batches[0][:2]])  # code and kernels are loaded
    seconds, grown = [], 0
    for turn in range(repeats):
        fresh, before = copy.deepcopy(slim), settled()
        begun = time.process_time()
        found = reconstruct(model, fresh, plan, batches, **options)
        seconds.append(time.process_time() - begun)
        if turn == 0:
            grown = resident("VmHWM") - before
    return {
        "status": "done",
        "seconds": seconds,
        "weights": sum(1 for layer in found.layers if not layer.cause),
        "examples": found.examples,
        "stated": found.memory,
        "measured": grown,
    }


def settled() -> int:
    """Bytes held now, with all that is free given back and the peak forgotten."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(which: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def slope(points: Sequence[tuple[int, float]]) -> float:
    """Of the least-squares line through logarithms: 1 is linear."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    return statistics.linear_regression(*zip(*logs, strict=True)).slope


def specs() -> list[str]:
    found = [f"{family}:{blocks}:{AT['tokens']}" for family in FAMILIES for blocks in BLOCKS]
    found += [f"{family}:{AT['blocks']}:{tokens}" for family in FAMILIES for tokens in TOKENS]
    found += [f"{family}:{AT['blocks']}:{TOKENS[-1]}:{100_000_000}" for family in FAMILIES]
    return list(dict.fromkeys(["lite0:512", *found, "lite0:1024"]))


def page(rows: dict[str, Row]) -> str:
    import torch

    doc = " ".join((__doc__ or "").split("\n\n")[1].replace("; writes reconstruction.md", "").split())
    doc = doc.replace(" Run with `make bench`.", "")
    about = ABOUT.format(today=date.today(), torch=torch.__version__, repeats=REPEATS, doc=doc)
    parts = [about, *_growth(rows, 0), *_growth(rows, 1), *_bounded(rows), *_lite0(rows)]
    return "\n".join([*parts, ""])


def _growth(rows: dict[str, Row], axis: int) -> Iterator[str]:
    what, unit = (("layers", "layer"), ("positions", "1,000 positions"))[axis]
    fixed = f"{AT['tokens']:,} positions" if axis == 0 else f"{AT['blocks']} blocks"
    yield from ("", f"## By {what}, at {fixed}", "")
    yield f"| network | {what} | CPU s | ms per {unit} | stated, MB | measured, MB |"
    yield "|---|---|---|---|---|---|"
    for family in FAMILIES:
        chosen = BLOCKS if axis == 0 else TOKENS
        names = [
            f"{family}:{n}:{AT['tokens']}" if axis == 0 else f"{family}:{AT['blocks']}:{n}" for n in chosen
        ]
        points: list[list[tuple[int, float]]] = [[] for _ in range(REPEATS)]
        for name in names:
            row = rows.get(name)
            if row is None or row["status"] != "done":
                continue
            size = row["weights"] if axis == 0 else int(name.split(":")[2])
            per = 1e3 * statistics.median(row["seconds"]) / size * (1 if axis == 0 else 1000)
            yield f"| {family} | {size:,} | {_spread(row['seconds'])} | {per:.1f} | {_memory(row)} |"
            for own, second in zip(points, row["seconds"], strict=True):
                own.append((size, second))
        if len(points[0]) > 1:
            slopes = sorted(slope(own) for own in points)
            tops = sorted(slope(own[-2:]) for own in points)
            yield f"| {family} | log-log slope | {_range(slopes)}; last two sizes {_range(tops)} | | | |"


def _bounded(rows: dict[str, Row]) -> Iterator[str]:
    yield from ("", "## With a bound", "")
    yield "| network | bound, MB | batches used | stated, MB | measured, MB |"
    yield "|---|---|---|---|---|"
    for name, row in rows.items():
        if name.count(":") == 3 and row["status"] == "done":
            per = BATCH // (64 if name.startswith("residual") else 32)
            used = f"{row['examples'] // per} of {int(name.split(':')[2]) // BATCH}"
            yield f"| {name.split(':')[0]} | {int(name.split(':')[3]) / 1e6:.0f} | {used} | {_memory(row)} |"


def _lite0(rows: dict[str, Row]) -> Iterator[str]:
    yield from ("", f"## EfficientNet-Lite0 at {PIXELS} pixels, half the MACs", "")
    yield "| examples given | used | weights | CPU s | stated, MB | measured, MB |"
    yield "|---|---|---|---|---|---|"
    for name, row in rows.items():
        if name.startswith("lite0") and row["status"] == "done":
            cells = f"{row['examples']} | {row['weights']} | {_spread(row['seconds'])} | {_memory(row)}"
            yield f"| {name.split(':')[1]} | {cells} |"


def _memory(row: Row) -> str:
    return f"{row['stated'] / 1e6:.0f} | {row['measured'] / 1e6:.0f}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _range(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({values[0]:.2f} to {values[-1]:.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    rows: dict[str, Row] = {}
    for spec, row in run_all(specs(), measure_one, 1):
        rows[spec] = row
        print(f"{spec}: {row}", flush=True)
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
