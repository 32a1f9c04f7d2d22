"""The commands."""

import sys
import traceback
import warnings
from importlib.metadata import version
from typing import Annotated, Any

import typer

from penjing.cli._go import Options, first_free, go, recipe_from
from penjing.cli._screen import say_json
from penjing.cli._views import show_comparison, show_structure
from penjing.core import BudgetError, InternalError, PenjingError
from penjing.pipeline import compare as compare_networks
from penjing.pipeline import demo_recipe
from penjing.pipeline import inspect as inspect_network

app = typer.Typer(
    help="Shape a neural network to a budget: smaller, faster, dense.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines on stdout and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error came from.")]
Seed = Annotated[int | None, typer.Option(help="What every random choice is drawn from (default 0).", min=0)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would run and how long; write nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in --out.")]
Out = Annotated[str | None, typer.Option(help="The run folder (default: a new one under runs/).")]
ImageSize = Annotated[
    int | None, typer.Option(help="Height and width of pictures (default: the network's).", min=8)
]


def _version(asked: bool) -> None:
    if asked:
        print(f"penjing {version('penjing')}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


@app.command()
def demo(
    out: Out = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The main job on real data that ships with the dependencies: EfficientNet-Lite0 below half its MACs."""
    options = Options(dry_run=dry_run, resume=resume, as_json=as_json, quiet=quiet)
    go(demo_recipe(seed=seed or 0), out or first_free("demo"), options)


@app.command()
def shape(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE.yaml]", help="Settings; options given here win.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="image-classification")] = None,
    model: Annotated[
        str | None, typer.Option(help="timm:NAME, torchvision:NAME or file:PATH.py:FACTORY")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="pretrained, none, or a .safetensors or .pt file")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A source or a saved network to learn from first.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="builtin:NAME, a folder of class folders, a CSV/JSONL/Parquet file, or a HF name"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help='In macs and params, for example "macs<=0.5x,params<=2M".')
    ] = None,
    runtime: Annotated[str | None, typer.Option(help="What latency is measured in: eager")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda")] = None,
    image_size: ImageSize = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out unreadable pictures and count them.")
    ] = False,
    out: Out = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    seed: Seed = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Transfer a pretrained network to your data, shrink it to a budget, win its accuracy back, measure."""
    given: dict[str, Any] = {
        "task": task, "model": model, "weights": weights, "teacher": teacher, "data": data, "budget": budget,
        "runtime": runtime, "device": device, "image_size": image_size, "seed": seed,
    }  # fmt: skip
    found = recipe_from(recipe, given, skip_bad=skip_bad, resumed=out if resume else None)
    options = Options(dry_run=dry_run, resume=resume, as_json=as_json, quiet=quiet, trust=True)
    go(found, out or first_free(found.model.rpartition(":")[2]), options)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="SOURCE|RUN", help="A source, a run, or a saved network.")],
    image_size: ImageSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Complexity per layer, what may shrink, and what may not and why."""
    found = inspect_network(source, image_size=image_size, trust=True)
    if as_json:
        say_json(found)
    elif not quiet:
        show_structure(found)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="RUN|SOURCE")],
    b: Annotated[str, typer.Argument(metavar="RUN|SOURCE")],
    data: Annotated[str, typer.Option(help="What both answer: as in `penjing shape`.")],
    image_size: ImageSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Two networks on the same held-out examples: size, speed, accuracy, and where they differ."""
    found = compare_networks(a, b, data=data, image_size=image_size, trust=True)
    if as_json:
        say_json(found)
    elif not quiet:
        show_comparison(found)


def main() -> None:
    """The `penjing` command. Exit codes: 0 done, 2 wrong use, 4 budget out of reach, 130 interrupted."""
    debug = "--debug" in sys.argv
    if not debug:
        warnings.simplefilter("ignore")
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted", file=sys.stderr)
        code = 130
    except Exception as error:
        code = _answer(error, debug)
    sys.exit(code if isinstance(code, int) else 0)


def _answer(error: Exception, debug: bool) -> int:
    """Tells what went wrong; returns the exit code."""
    if isinstance(error, PenjingError):
        _complain(str(error), error, debug)
        return error.exit_code
    show: Any = getattr(error, "show", None)
    if show is not None:  # the option parser's own errors know how to show themselves
        show()
        return getattr(error, "exit_code", 2)
    text = f"this is a mistake in Penjing, please report it: {type(error).__name__}: {error}"
    _complain(f"{text} (--debug shows where)", error, debug)
    return InternalError.exit_code


def _complain(text: str, error: Exception, debug: bool) -> None:
    print(f"error: {text}", file=sys.stderr)
    if debug:
        traceback.print_exception(error)
    if "--json" in sys.argv:
        nearest = {"nearest": error.nearest} if isinstance(error, BudgetError) else {}
        say_json({"event": "error", "kind": type(error).__name__, "text": text, **nearest})
