"""What `inspect`, `compare` and `--dry-run` print."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penjing.cli._screen import duration
from penjing.core import Recipe
from penjing.report import count, table


def show_plan(recipe: Recipe, seconds: Mapping[str, float], out: str) -> None:
    """The steps that would run, and about how long each takes."""
    console = _console()
    console.print(
        f"Would shape {escape(recipe.model)} on {escape(recipe.data.source)} to {recipe.budget} in {out}:"
    )
    drawn = Table("step", _right("about"))
    for step, predicted in seconds.items():
        drawn.add_row(step, duration(predicted))
    drawn.add_section()
    drawn.add_row("all", duration(sum(seconds.values())))
    console.print(drawn)
    console.print("Nothing was written.")


def show_structure(found: Mapping[str, Any]) -> None:
    """Complexity per layer, groups, and what is frozen and why."""
    console, size = _console(), "x".join(map(str, found["input_size"]))
    sizes = f"{count(found['params'])} params, {count(found['macs'])} MACs at {size}"
    console.print(f"{escape(found['source'])}: {sizes}, {found['size_bytes'] / 1e6:.1f} MB")
    console.print(_layers(found))
    console.print(_groups(found["groups"]))
    console.print(_frozen(found["frozen"]) if found["frozen"] else "Nothing is frozen.")
    if found["unknown_ops"]:
        console.print(
            f"Operations without a rule (all they touch is frozen): {', '.join(found['unknown_ops'])}"
        )


def show_comparison(found: Mapping[str, Any]) -> None:
    """Both networks' figures, then how they differ."""
    console = _console()
    console.print(table(found))
    a, b = (row["name"] for row in found["rows"])
    for key, timed in found["speedup"].items():
        span = f"{timed['low']:.2f}-{timed['high']:.2f}"
        batch = key.removeprefix("batch_")
        console.print(
            f"At batch {batch} {escape(b)} is {timed['ratio']:.2f}x ({span}) as fast as {escape(a)}."
        )
    console.print(
        f"Same answer on {found['agreement']:.1%} of {found['data']['n']} examples; "
        f"only {escape(a)} right: {found['only_a_right']}, only {escape(b)} right: {found['only_b_right']}."
    )


def _layers(found: Mapping[str, Any]) -> Table:
    drawn = Table("layer", "kind", "shape", _right("params"), _right("MACs"), _right("share"), title="Layers")
    for layer in found["layers"]:
        shape = " ".join("x".join(map(str, shape)) for shape in layer["shapes"][:1])
        share = layer["macs"] / found["macs"] if found["macs"] else 0.0
        sizes = (count(layer["params"]), count(layer["macs"]), f"{share:.1%}")
        drawn.add_row(escape(layer["path"]), layer["kind"], shape, *sizes)
    return drawn


def _groups(groups: list[Mapping[str, Any]]) -> Table:
    drawn = Table(
        "group", "granularity", _right("units"), "fidelity", _right("tensors"), title="What may shrink"
    )
    for group in groups:
        sizes = (str(group["units"]), group["fidelity"], str(len(group["tensors"])))
        drawn.add_row(escape(group["name"]), group["granularity"], *sizes)
    return drawn


def _frozen(frozen: list[Mapping[str, Any]]) -> Table:
    drawn = Table("module", "what", "why", title="What may not shrink")
    for module in frozen:
        causes: dict[str, list[str]] = {}
        for item in module["dims"]:
            name = item["parameter"].rpartition(".")[2]
            causes.setdefault(item["cause"], []).append(f"{name} dim {item['dim']} ({item['count']})")
        for cause, what in causes.items():
            drawn.add_row(escape(module["module"]), "\n".join(what), escape(cause))
    return drawn


def _right(heading: str) -> Any:
    from rich.table import Column

    return Column(heading, justify="right", no_wrap=True)


def _console() -> Console:
    """Tables keep their width where nobody looks at a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    return console
