"""From options to a recipe, and from a recipe to a shown run."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from penjing.cli._interrupt import CODE, in_order, interrupted
from penjing.cli._screen import Screen, say_json, screen
from penjing.cli._views import show_plan
from penjing.core import Recipe, UsageError, clean, read_yaml, refuse_code, runs_code
from penjing.pipeline import dry_run, help_tune, launched, leads, shape, silent

CERTIFIED, NOT_CERTIFIED = "certified", 3  # a verdict, and the exit code of the others
DEFAULT_TASK = "image-classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run, beside what."""

    dry_run: bool = False
    resume: bool = False
    as_json: bool = False
    quiet: bool = False
    trust: bool = False


def check_resumable(out: str | None) -> None:
    """Raises `UsageError` where there is nothing that `--resume` could go on with."""
    if out is None:
        raise UsageError("--resume needs --out, the folder of the run to go on with.")
    if not Path(out).is_dir():
        raise UsageError(
            f"--resume: the folder {clean(out)} does not exist. Fix: name a run's folder with --out"
        )


def recipe_from(file: str | None, given: Mapping[str, Any], *, resumed: str | None = None) -> Recipe:
    """The recipe in `file`, else the one stored in the run folder `resumed`, with given options on top.

    `given` holds what the command line says by key ("seed", "data.source"); None is not given.
    """
    where = "the command line"
    values: dict[str, Any] = {}
    if file is not None or (resumed is not None and (Path(resumed) / "recipe.yaml").exists()):
        where = file if file is not None else f"{resumed}/recipe.yaml"
        values = read_yaml(where)
    options = {key: value for key, value in given.items() if value is not None}
    refuse_code({key: value for key, value in values.items() if key not in options}, where=where)
    merged = values | {key: value for key, value in options.items() if not key.startswith("data.")}
    for name, weights in (("model", "weights"), ("teacher", "teacher_weights")):
        if name in options and weights not in options and options[name] != values.get(name, options[name]):
            merged.pop(weights, None)
    merged["data"] = _data(values.get("data"), options)
    return Recipe.of({"task": DEFAULT_TASK, **merged}, where=where, given=frozenset(options))


def _data(written: Any, options: Mapping[str, Any]) -> Any:
    """The recipe's data with the command line's on top; another source drops the options of the first."""
    if written is not None and not isinstance(written, dict | str):
        return written
    data = dict(written) if isinstance(written, dict) else {"source": written}
    first, asked = data.get("source"), options.get("data.source")
    if None not in (first, asked) and asked != first:
        data = {}
    given = {key.removeprefix("data."): value for key, value in options.items() if key.startswith("data.")}
    return data | given


def first_free(name: str) -> str:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3, ... that does not exist."""
    if launched() > 1:
        raise UsageError("Under torchrun the processes need to know one run folder. Fix: name it with --out")
    for number in range(1, 10_000):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not path.exists():
            return str(path)
    return str(Path("runs") / name)


def go(recipe: Recipe, out: str, options: Options) -> None:
    """Runs (or, dry, predicts) `recipe` and shows it; an interrupt says how to go on and exits with 130."""
    trust = options.trust and any(runs_code(source or "") for source in (recipe.model, recipe.teacher))
    if not leads():  # torchrun started several: the first one speaks
        options = replace(options, quiet=True)
    if options.dry_run:
        return _dry(recipe, out, options, trust)
    view: Screen | None = None
    try:
        with in_order():
            view = screen(as_json=options.as_json, quiet=options.quiet)
            listen = silent if options.quiet else view.hear
            metrics = shape(recipe, out, resume=options.resume, trust=trust, listen=listen)
            view.close()
    except KeyboardInterrupt:
        if view is not None:
            view.close()
        print(interrupted(_how_to_go_on(recipe, out)), file=sys.stderr)
        raise typer.Exit(CODE) from None
    except BaseException:
        if view is not None:
            view.close()
        raise
    if leads():
        view.result(metrics, out)
        if metrics.get("certificate", {}).get("verdict", CERTIFIED) != CERTIFIED:
            raise typer.Exit(NOT_CERTIFIED)


def lend_a_hand(run: str, model: str | None, device: str | None, *, as_json: bool, quiet: bool) -> None:
    """Tries options for the run in the folder `run`; an interrupt gives the trial back and exits with 130."""
    view = screen(as_json=as_json, quiet=quiet)
    try:
        with in_order():
            listen = silent if quiet else view.hear
            help_tune(run, model=model, device=device, trust=model is not None, listen=listen)
    except KeyboardInterrupt:
        print(interrupted("; the trial was given back"), file=sys.stderr)
        raise typer.Exit(CODE) from None
    finally:
        view.close()


def _how_to_go_on(recipe: Recipe, out: str) -> str:
    if not (Path(out) / "run.json").exists():
        return ""
    named = (("model", recipe.model), ("teacher", recipe.teacher or ""))
    again = "".join(f" --{name} {shlex.quote(source)}" for name, source in named if runs_code(source))
    return clean(f"; go on with: penjing shape{again} --out {shlex.quote(out)} --resume")


def _dry(recipe: Recipe, out: str, options: Options, trust: bool) -> None:
    seconds = dry_run(recipe, out, resume=options.resume, trust=trust)
    if options.as_json:
        values = recipe.model_dump(mode="json")
        say_json({"event": "dry-run", "out": out, "seconds": seconds, "recipe": values})
    elif not options.quiet:
        show_plan(recipe, seconds, out)
