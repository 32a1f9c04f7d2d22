"""Curves for TensorBoard."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.report._table import count
from penjing.runtimes import quiet


class EventLog:
    """Event files of one stage of a run: loss, accuracy and learning rate by epoch, structure as text.

    Raises `ImportError` where TensorBoard is not installed: pip install 'penjing[report]'.
    """

    def __init__(self, folder: Path, *, first: int = 0) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard.writer import SummaryWriter
        self._writer: Any = SummaryWriter(str(folder), purge_step=first or None)

    def epoch(self, number: int, figures: Mapping[str, float]) -> None:
        """One point on every curve; a repeated epoch replaces what an interrupted run left."""
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(name, value, number)

    def structure(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Sizes before and after: scalars at steps 0 and 1, and a table of every layer that changed.

        Both mappings hold `params`, `macs` and `layers` (path -> shape).
        """
        for step, side in enumerate((before, after)):
            for name in ("params", "macs"):
                self._writer.add_scalar(f"structure/{name}", side[name], step)
        self._writer.add_text("structure", _markdown(before, after), 1)

    def graph(self, model: Any, inputs: tuple[Any, ...]) -> None:
        """The network's operators as a graph, where torch can trace it; raises what tracing raises."""
        with quiet():
            self._writer.add_graph(model, inputs, verbose=False, use_strict_trace=False)

    def precision_recall(self, name: str, right: Any, chances: Any) -> None:
        """Precision over recall of one class: whether each example is of it, and how likely it was held to be, [n]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            self._writer.add_pr_curve(name, right, chances)

    def embedding(
        self, features: Any, rows: list[list[str]], header: list[str], pictures: Any = None
    ) -> None:
        """Points to be looked at in the projector: features [n, d], what is told of each, and its picture [n, c, h,
        w]."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._writer.add_embedding(
                features, metadata=rows, metadata_header=header, label_img=pictures, tag="flips"
            )

    def settings(self, options: Mapping[str, Any], figures: Mapping[str, float]) -> None:
        """What was asked and what came out, for the table that compares runs."""
        told = {
            name: value if isinstance(value, int | float | bool) else str(value)
            for name, value in options.items()
        }
        self._writer.add_hparams(told, dict(figures), run_name=".")

    def close(self) -> None:
        self._writer.close()


def _markdown(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    lines = ["| layer | before | after |", "|---|---|---|"]
    for name in ("params", "macs"):
        lines.append(f"| {name} | {count(before[name])} | {count(after[name])} |")
    for path, shape in before["layers"].items():
        left = after["layers"].get(path)
        if left != shape:
            lines.append(f"| {path} | {_shape(shape)} | {_shape(left) if left else 'dropped'} |")
    return "\n".join(lines)


def _shape(shape: Any) -> str:
    return " x ".join(str(size) for size in shape)
