"""From options to a recipe, and from a recipe to a shown run."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from penjing.cli._screen import say_json, screen
from penjing.cli._views import show_plan
from penjing.core import Recipe, read_yaml, refuse_code, runs_code
from penjing.pipeline import predict, shape, silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run, beside what."""

    dry_run: bool = False
    resume: bool = False
    as_json: bool = False
    quiet: bool = False
    trust: bool = False


def recipe_from(
    file: str | None, given: Mapping[str, Any], *, skip_bad: bool = False, resumed: str | None = None
) -> Recipe:
    """The recipe in `file`, else the one stored in the run folder `resumed`, with given options on top."""
    where = "the command line"
    values: dict[str, Any] = {}
    if file is not None or (resumed is not None and (Path(resumed) / "recipe.yaml").exists()):
        where = file or f"{resumed}/recipe.yaml"
        values = read_yaml(where)
    options = {key: value for key, value in given.items() if value is not None}
    refuse_code({key: value for key, value in values.items() if key not in options}, where=where)
    merged = values | options
    if "model" in options and "weights" not in options and options["model"] != values.get("model"):
        merged.pop("weights", None)
    merged["data"] = _data(values.get("data"), options.get("data"), skip_bad)
    return Recipe.of({"task": "image-classification", **merged}, where=where)


def _data(written: Any, asked: str | None, skip_bad: bool) -> Any:
    """The recipe's data with the command line's on top; another source drops the options of the first."""
    data = dict(written) if isinstance(written, dict) else {"source": written}
    if asked is not None and asked != data.get("source"):
        data = {"source": asked}
    return data | ({"skip_bad": True} if skip_bad else {})


def first_free(name: str) -> str:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that does not exist."""
    for number in range(1, 10_000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return str(path)
    return str(Path("runs") / name)


def go(recipe: Recipe, out: str, options: Options) -> None:
    """Runs (or, dry, predicts) `recipe` and shows it; an interrupt says how to go on and exits with 130."""
    trust = options.trust and any(runs_code(source or "") for source in (recipe.model, recipe.teacher))
    if options.dry_run:
        return _dry(recipe, out, options, trust)
    view = screen(as_json=options.as_json, quiet=options.quiet)
    try:
        with _terminating():
            listen = silent if options.quiet else view.hear
            metrics = shape(recipe, out, resume=options.resume, trust=trust, listen=listen)
    except KeyboardInterrupt:
        view.close()
        again = f" --model {recipe.model}" if runs_code(recipe.model) else ""
        print(f"interrupted; go on with: penjing shape{again} --out {out} --resume", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        view.close()
    view.result(metrics, out)


def _dry(recipe: Recipe, out: str, options: Options, trust: bool) -> None:
    seconds = predict(recipe, trust=trust)
    if options.as_json:
        values = recipe.model_dump(mode="json")
        say_json({"event": "dry-run", "out": out, "seconds": seconds, "recipe": values})
    elif not options.quiet:
        show_plan(recipe, seconds, out)


@contextmanager
def _terminating() -> Iterator[None]:
    """A polite kill ends like Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
