"""The commands."""

import io
import sys
import traceback
import warnings
from importlib.metadata import version
from typing import Annotated, Any

import typer

from penjing.cli._data import data as data_commands
from penjing.cli._go import (
    CERTIFIED,
    NOT_CERTIFIED,
    Options,
    check_resumable,
    first_free,
    go,
    lend_a_hand,
    recipe_from,
)
from penjing.cli._options import (
    Alphabet,
    Also,
    Code,
    Debug,
    DryRun,
    ImageSize,
    Json,
    LabelColumn,
    Margin,
    MaxLength,
    MaxSeconds,
    Out,
    PairColumn,
    PathColumn,
    Quiet,
    Resume,
    Runtime,
    Seed,
    SkipBad,
    Task,
    TextColumn,
    Tokenizer,
)
from penjing.cli._screen import counting, say_json
from penjing.cli._views import (
    read_record,
    show_certificates,
    show_comparison,
    show_explanation,
    show_export,
    show_reports,
    show_structure,
)
from penjing.core import BudgetError, InternalError, PenjingError, clean
from penjing.pipeline import certify_runs, demo_recipe, read_report, write_report
from penjing.pipeline import compare as compare_networks
from penjing.pipeline import export as export_network
from penjing.pipeline import inspect as inspect_network

TASKS = "image-, text-, token- or audio-classification, or speech-recognition."

app = typer.Typer(
    help="Shape a neural network to a budget: smaller, faster, dense.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(data_commands, name="data")


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
    if resume:
        check_resumable(out)
    options = Options(dry_run=dry_run, resume=resume, as_json=as_json, quiet=quiet)
    go(demo_recipe(seed=seed or 0), out or first_free("demo"), options)


@app.command()
def shape(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE.yaml]", help="Settings; options given here win.")
    ] = None,
    task: Annotated[str | None, typer.Option(help=TASKS)] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="timm:NAME, torchvision:NAME, hf:NAME_OR_FOLDER, builtin:NAME, hub:OWNER/REPO:NAME or "
            "file:PATH.py:FACTORY"
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="pretrained, none, or a .safetensors or .pt file")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A source or a saved network to learn from first.")
    ] = None,
    teacher_weights: Annotated[str | None, typer.Option(help="As --weights, for the teacher.")] = None,
    data: Annotated[
        str | None,
        typer.Option(help="builtin:NAME, a folder of class folders, a CSV/JSONL/Parquet file, or a HF name"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help='In latency, macs, params, size, memory: "latency<=0.5x,size<=5MB".')
    ] = None,
    margin: Margin = None,
    runtime: Runtime = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda")] = None,
    also: Also = None,
    image_size: ImageSize = None,
    path_column: PathColumn = None,
    label_column: LabelColumn = None,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    tokenizer: Tokenizer = None,
    max_length: MaxLength = None,
    max_seconds: MaxSeconds = None,
    alphabet: Alphabet = None,
    skip_bad: SkipBad = False,
    out: Out = None,
    dry_run: DryRun = False,
    resume: Resume = False,
    seed: Seed = None,
    seeds: Annotated[
        int | None, typer.Option(help="Recover with so many seeds, to see how far the result is chance.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Transfer a pretrained network to your data, shrink it to a budget, win its accuracy back, measure."""
    given: dict[str, Any] = {
        "task": task, "model": model, "weights": weights, "teacher": teacher,
        "teacher_weights": teacher_weights, "budget": budget, "margin": margin, "runtime": runtime, "device": device,
        "also": also, "image_size": image_size, "seed": seed, "seeds": seeds, "data.source": data,
        "data.path_column": path_column, "data.label_column": label_column, "data.text_column": text_column,
        "data.pair_column": pair_column, "data.tokenizer": tokenizer, "data.max_length": max_length,
        "data.max_seconds": max_seconds, "data.alphabet": alphabet, "data.skip_bad": skip_bad or None,
    }  # fmt: skip
    if resume:
        check_resumable(out)
    found = recipe_from(recipe, given, resumed=out if resume else None)
    options = Options(dry_run=dry_run, resume=resume, as_json=as_json, quiet=quiet, trust=True)
    go(found, out or first_free(found.model.rpartition(":")[2]), options)


@app.command()
def tune(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run whose recipe tunes.")],
    model: Code = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda, where not the recipe's.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Take part in a run's step tune, beside `penjing shape`: one more worker, here or on another machine."""
    lend_a_hand(run, model, device, as_json=as_json, quiet=quiet)


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(metavar="SOURCE|RUN", help="A source, a run, or a saved network.")],
    model: Code = None,
    task: Task = None,
    image_size: ImageSize = None,
    roofline: Annotated[
        bool,
        typer.Option("--roofline", help="Time it, and say how far it is from what this machine could do."),
    ] = False,
    adjustments: Annotated[
        bool,
        typer.Option(
            "--adjustments", help="List what components could become, timed, and why others cannot."
        ),
    ] = False,
    data: Annotated[
        str | None, typer.Option(help="What --adjustments fits new components to; a run has its own.")
    ] = None,
    runtime: Runtime = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Complexity per layer, what may shrink, and what may not and why."""
    with counting(quiet=quiet or as_json) as tell:
        found = inspect_network(
            source,
            image_size=image_size,
            trust=True,
            model=model,
            task=task,
            bound=roofline,
            options=adjustments,
            runtime=runtime or "eager",
            data=data,
            tell=tell,
        )
    if as_json:
        say_json(found)
    elif not quiet:
        show_structure(found)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="RUN|SOURCE")],
    b: Annotated[str, typer.Argument(metavar="RUN|SOURCE")],
    data: Annotated[str, typer.Option(help="What both answer: as in `penjing shape`.")],
    model: Code = None,
    task: Task = None,
    runtime: Runtime = None,
    image_size: ImageSize = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Two networks on the same held-out examples: size, speed, accuracy, and where they differ."""
    found = compare_networks(
        a,
        b,
        data=data,
        image_size=image_size,
        runtime=runtime or "eager",
        trust=True,
        model=model,
        task=task,
    )
    if as_json:
        say_json(found)
    elif not quiet:
        show_comparison(found)


@app.command()
def certify(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    margin: Annotated[float, typer.Option(help="Points that the metric may lose.")],
    data: Annotated[
        str | None, typer.Option(help="Fresh labelled examples; without it the run's certification split.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="The risk of a wrong certificate.")] = 0.05,
    model: Code = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Is the file that was handed over good enough? Exit code 3 where that is not shown."""
    found = certify_runs(runs, margin=margin, data=data, alpha=alpha, trust=True, model=model)
    if as_json:
        say_json(found)
    elif not quiet:
        show_certificates(found)
    if any(one["verdict"] != CERTIFIED for one in found.values()):
        raise typer.Exit(NOT_CERTIFIED)


@app.command()
def explain(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """What was removed and why, what was left alone and why, and which answers changed."""
    found = read_report(run)
    if as_json:
        say_json({"unfinished": found["unfinished"], **found.get("explain", {})})
    elif not quiet:
        show_explanation(found)


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write a run's report.html anew and tell it in words; several runs are told beside each other."""
    pages, found = [str(write_report(run)) for run in runs], {run: read_report(run) for run in runs}
    if as_json:
        say_json({"pages": pages, "runs": {run: told["metrics"] for run, told in found.items()}})
    elif not quiet:
        show_reports(found, pages)


@app.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run, or a saved network.")],
    to: Annotated[str, typer.Option(help="onnx or openvino")],
    int8: Annotated[bool, typer.Option("--int8", help="Not built yet.", hidden=True)] = False,
    model: Code = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write the slim network for another runtime, compared with PyTorch there, into the run's export/."""
    found = export_network(run, to, int8=int8, trust=True, model=model)
    if as_json:
        say_json(read_record(found))
    elif not quiet:
        show_export(found)


def run() -> int:
    """Obeys the command line and returns the exit code."""
    debug = "--debug" in sys.argv
    if not debug:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        code = _answer(error, debug)
    return code if isinstance(code, int) else 0


def _answer(error: Exception, debug: bool) -> int:
    """Tells what went wrong; returns the exit code."""
    if isinstance(error, PenjingError):
        _complain(str(error), error, debug)
        return error.exit_code
    say: Any = getattr(error, "format_message", None)
    if say is not None:  # the option parser's own errors
        return _answer_parser(error, say(), debug)
    text = f"this is a mistake in Penjing, please report it: {type(error).__name__}: {error}"
    _complain(f"{text} (--debug shows where)", error, debug)
    return InternalError.exit_code


def _answer_parser(error: Any, text: str, debug: bool) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(text, file=sys.stderr)
    else:
        path = context.command_path if context is not None else "penjing"
        _complain(f"{text} (penjing{path[path.find(' ') :] if ' ' in path else ''} --help)", error, debug)
    return getattr(error, "exit_code", 2)


def _complain(text: str, error: Exception, debug: bool) -> None:
    print(f"error: {clean(text, lines=True)}", file=sys.stderr)
    if debug:
        print(clean("".join(traceback.format_exception(error)), lines=True), file=sys.stderr)
    if "--json" in sys.argv:
        nearest = {"nearest": error.nearest} if isinstance(error, BudgetError) else {}
        say_json({"event": "error", "kind": type(error).__name__, "text": text, **nearest})
