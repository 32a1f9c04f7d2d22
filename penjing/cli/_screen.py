"""How a run shows itself: drawn, as lines, as JSON, or not at all."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from penjing.core import clean
from penjing.pipeline import Event
from penjing.report import (
    Stacked,
    scalability_table,
    scalability_why,
    table,
    trials,
    trials_lost,
    tried_table,
    tried_why,
    verdict,
)

NARROW = 60  # characters, below which names of steps are cut


class Screen(Protocol):
    """Hears the events of a run, then shows its result."""

    def hear(self, event: Event) -> None: ...

    def result(self, metrics: Mapping[str, Any], out: str) -> None: ...

    def close(self) -> None: ...


def screen(*, as_json: bool, quiet: bool) -> Screen:
    """The screen that fits the options and the terminal."""
    if as_json:
        return JsonScreen()
    if quiet:
        return QuietScreen()
    return DrawnScreen() if sys.stderr.isatty() else LineScreen()


@contextmanager
def counting(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """How far something long is, on stderr while it lasts: a callback that takes what is done, how many, and of how
    many.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        known: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            for other in [name for name in known if name != stage]:
                bar.remove_task(known.pop(other))
            known.setdefault(stage, bar.add_task(stage, total=total) if stage not in known else None)
            bar.update(known[stage], completed=done, total=total)

        yield tell


class QuietScreen:
    """Nothing but errors, which are not its business."""

    def hear(self, event: Event) -> None: ...

    def result(self, metrics: Mapping[str, Any], out: str) -> None: ...

    def close(self) -> None: ...


class JsonScreen(QuietScreen):
    """One JSON object a line on stdout: every event, then the result."""

    def hear(self, event: Event) -> None:
        said = {"event": event.kind, "step": event.step}
        if event.kind == "progress":
            said |= {"stage": event.stage, "done": event.done, "total": event.total}
        say_json(said | ({"text": event.text} if event.text else {}) | {"figures": dict(event.figures)})

    def result(self, metrics: Mapping[str, Any], out: str) -> None:
        say_json({"event": "result", "out": out, "verdict": verdict(metrics), "metrics": metrics})


class LineScreen:
    """One line on stderr per finished step, with the time left by prediction; the result on stdout."""

    def __init__(self) -> None:
        self.clock = Clock()

    def hear(self, event: Event) -> None:
        self.clock.hear(event)
        if event.kind == "note":
            print(f"note: {clean(event.text)}", file=sys.stderr)
        elif event.kind == "skip":
            print(f"{event.step}: finished before", file=sys.stderr)
        elif event.kind == "start":
            print(f"{event.step} ... (about {duration(self.clock.left())} left)", file=sys.stderr, flush=True)

    def result(self, metrics: Mapping[str, Any], out: str) -> None:
        print(verdict(metrics))
        show(table(metrics))
        if metrics.get("scalability"):
            show(scalability_table(metrics), *scalability_why(metrics))
        show_tried(metrics.get("tried"))
        if metrics.get("tuned"):
            show(trials(metrics["tuned"]), *trials_lost(metrics["tuned"]))
        print(clean(f"run: {out}   network: {out}/model"))

    def close(self) -> None: ...


class DrawnScreen(LineScreen):
    """A bar for the whole run on stderr, with the step, its figures and the time left."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        console = console or Console(stderr=True)
        cut = Column(no_wrap=True, overflow="ellipsis")
        self.bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=cut),
            BarColumn(bar_width=max(8, min(40, console.width // 6))),
            "{task.percentage:>3.0f}%",
            TextColumn("{task.fields[figures]}", markup=False, table_column=cut),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("starting", total=1.0, figures="", left="")
        self.bar.start()

    def hear(self, event: Event) -> None:
        self.clock.hear(event)
        if event.kind == "note":
            self.bar.console.print(f"note: {clean(event.text)}", highlight=False, markup=False)
            return
        width = self.bar.console.width
        name = event.step + (f" ({event.stage})" if event.stage not in ("", event.step) else "")
        name = clean(name or "starting")
        left = f"{duration(self.clock.left())} left"
        room = width - min(len(name), width // 3) - len(left) - max(8, min(40, width // 6)) - 8
        self.bar.update(
            self.task,
            description=name if len(name) <= width // 3 or width >= NARROW else name[: width // 3 - 1] + "…",
            completed=self.clock.share(),
            figures=_figures(event.figures, room),
            left=left,
        )

    def close(self) -> None:
        self.bar.stop()


def _figures(figures: Mapping[str, float], room: int) -> str:
    """As many of the figures of training as fit into `room` characters."""
    text = ""
    named = {"selection_f1": "F1", "selection_wer": "WER", "selection_accuracy": "accuracy"}
    score = next((key for key in named if key in figures), "selection_accuracy")
    for key, name in (("loss", "loss"), (score, named[score]), ("lr", "lr")):
        more = f"{text}{' ' if text else ''}{name} {figures[key]:.4g}" if key in figures else text
        text = more if len(more) <= room else text
    return text


class Clock:
    """Time left: the predicted seconds of what is to come, scaled by how the prediction has fared."""

    def __init__(self) -> None:
        self.predicted: dict[str, float] = {}
        self.done = 0.0
        self.within = 0.0
        self.step = ""
        self.begun = time.monotonic()

    def hear(self, event: Event) -> None:
        if event.kind == "plan":
            self.predicted = {step: float(seconds) for step, seconds in event.figures.items()}
            self.begun = time.monotonic()
        elif event.kind == "start":
            self.step, self.within = event.step, 0.0
        elif event.kind == "progress" and event.total:
            self.within = max(self.within, event.done / event.total)
        elif event.kind == "skip":
            self.predicted.pop(event.step, None)
        elif event.kind == "finish":
            self.done += self.predicted.get(event.step, 0.0)
            self.step, self.within = "", 0.0

    def share(self) -> float:
        """The share of the predicted work that is done, in [0, 1]."""
        total = sum(self.predicted.values())
        return min(1.0, self._worked() / total) if total else 0.0

    def left(self) -> float:
        """Seconds to go; the prediction counts for as much as ten seconds of experience."""
        worked = self._worked()
        pace = (time.monotonic() - self.begun + 10.0) / (worked + 10.0)
        return max(0.0, sum(self.predicted.values()) - worked) * pace

    def _worked(self) -> float:
        return self.done + self.within * self.predicted.get(self.step, 0.0)


def show(drawn: Stacked, *words: str) -> None:
    """A table on stdout, drawn where that is a terminal, and what there is to say below it."""
    if sys.stdout.isatty():
        Console().print(drawn)
    else:
        print(drawn.plain())
    for text in words:
        print(text)


def show_tried(tried: Mapping[str, Any] | None) -> None:
    """What a run tried, and why it chose what it did; nothing where it tried nothing."""
    if tried is not None:
        show(tried_table(tried), *tried_why(tried))


def say_json(value: Mapping[str, Any]) -> None:
    print(json.dumps(value, allow_nan=False, default=float), flush=True)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(8), duration(95), duration(7500)
    ('8 s', '1 min 35 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
