"""What a search for milliseconds costs as networks grow; writes search_cost.md. Run with `make latency`.

Residual networks of 4 to 32 blocks of 64 channels, whose widths are multiples of 32, 8 or 2 (2, 8 or 32 options each),
cut to half their time by loss per millisecond on one thread in eager PyTorch. Linear cost is a slope of at most 1 in
log-log coordinates.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.measure import Timekeeper, Timing
from penjing.search import Aimed, _within_time

HERE = Path(__file__).parent
CHANNELS = 64
BLOCKS = (4, 8, 16, 32)
WIDTHS = (2, 8, 32)
Sizes = tuple[int, int]  # blocks, widths of each


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.outer = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.relu(self.inner(x)))


def residual(blocks: int) -> nn.Module:
    torch.manual_seed(0)
    stem, head = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Linear(CHANNELS, 10)
    body = (Block() for _ in range(blocks))
    return nn.Sequential(stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


class Watched(Timekeeper):
    """A timekeeper that says how many CPU seconds it took itself."""

    seconds = 0.0

    def time(self, model: nn.Module, *, operators: bool = True) -> Timing:
        begun = time.process_time()
        try:
            return super().time(model, operators=operators)
        finally:
            Watched.seconds += time.process_time() - begun


def rising(group: Any, model: nn.Module) -> Tensor:
    """A stand-in for a loss, alike in all groups."""
    return torch.linspace(1, 2, len(group)) ** 2


rising.in_loss = "additive"  # type: ignore[attr-defined]


def cost(blocks: int, widths: int) -> dict[str, float]:
    """CPU seconds of one search: in all, and of them those spent timing networks."""
    model, told = residual(blocks), list[Aimed]()
    Watched.seconds, begun = 0.0, time.process_time()
    with patch.object(_within_time, "Timekeeper", Watched):  # what it times is the search's own
        pj.prune(
            model,
            torch.randn(8, 3, 8, 8),
            budget="latency<=0.5x",
            criterion=rising,
            scope="loss",
            round_to=CHANNELS // widths,
            threads=1,
            fresh=True,
            aimed=told.append,
        )
    whole = time.process_time() - begun
    return {
        "seconds": whole,
        "timing": Watched.seconds,
        "networks": told[0].networks,
        "tries": len(told[0].tries),
    }


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of log seconds over log size, by least rising.

    >>> round(slope([1, 2, 4], [3, 6, 12]), 6)
    1.0
    """
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def table(rows: Mapping[Sizes, Mapping[str, float]]) -> str:
    lines = [
        "# Search cost: CPU seconds of a search for milliseconds, by blocks and widths",
        "",
        f"{date.today()}, torch {torch.__version__}, one thread, CPU time. `make latency` repeats it. Residual",
        f"networks of {CHANNELS} channels, half their time, by loss per millisecond. Choosing is what is not timing:",
        "learning the table, choosing widths, cutting and proving every try.",
        "",
        "| blocks | widths | product | networks timed | tries | timing, s | choosing, s | all, s | per network, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (blocks, widths), row in rows.items():
        spent = f"{row['timing']:.1f} | {row['seconds'] - row['timing']:.1f} | {row['seconds']:.1f}"
        each = row["seconds"] / row["networks"]
        counts = f"{row['networks']:.0f} | {row['tries']:.0f}"
        lines.append(f"| {blocks} | {widths} | {blocks * widths} | {counts} | {spent} | {each:.2f} |")
    return "\n".join([*lines, "", *told(rows), ""])


def told(rows: Mapping[Sizes, Mapping[str, float]]) -> list[str]:
    """The slopes, where there are sizes to tell them from."""
    parts = {"all": lambda r: r["seconds"], "choosing": lambda r: r["seconds"] - r["timing"]}
    axes = {"blocks": 0, "widths": 1}
    found = []
    for name, seconds in parts.items():
        for axis, place in axes.items():
            slopes = [
                slope([s[place] for s in same], [seconds(rows[s]) for s in same])
                for same in _lines(rows, place)
            ]
            if slopes:
                spread = f"{min(slopes):.2f} to {max(slopes):.2f}"
                found.append(f"- slope of {name} over {axis}, the other held: {spread}")
        if len(rows) > 2:
            products = slope([b * w for b, w in rows], [seconds(row) for row in rows.values()])
            found.append(f"- slope of {name} over blocks times widths: {products:.2f}")
    return found


def _lines(rows: Mapping[Sizes, Any], place: int) -> list[list[Sizes]]:
    """Sizes that differ at `place` alone, at least three."""
    held: dict[int, list[Sizes]] = {}
    for sizes in rows:
        held.setdefault(sizes[1 - place], []).append(sizes)
    return [same for same in held.values() if len(same) > 2]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/search_cost"), help="folder of finished rows")
    parser.add_argument("--page", type=Path, default=HERE / "search_cost.md", help="where the page goes")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    rows: dict[Sizes, Mapping[str, float]] = {}
    for blocks in BLOCKS:
        for widths in WIDTHS:
            path = options.out / f"{blocks}-{widths}.json"
            if not path.exists():
                path.write_text(json.dumps(cost(blocks, widths)))
                print(path.stem, path.read_text(), flush=True)
            rows[blocks, widths] = json.loads(path.read_text())
    options.page.write_text(table(rows))


if __name__ == "__main__":
    main()
