"""What `inspect`, `compare` and `--dry-run` print."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penjing.cli._screen import duration, show_tried
from penjing.core import Recipe, clean, cut
from penjing.export import Exported
from penjing.report import (
    Listing,
    agreement,
    certificate_lines,
    count,
    curves,
    flips,
    from_right,
    frozen_table,
    report_lines,
    runs_table,
    size,
    table,
)

MOST_CAUSES = 30  # shown of why components are left alone


def show_plan(recipe: Recipe, seconds: Mapping[str, float], out: str) -> None:
    """The steps that would run, and about how long each takes."""
    console = _console()
    console.print(
        f"Would shape {_safe(recipe.model)} on {_safe(recipe.data.source)} to {recipe.budget} in {_safe(out)}:"
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
    console, taken = _console(), "x".join(map(str, found["input_size"]))
    sizes = f"{count(found['params'])} params, {count(found['macs'])} MACs at {taken}"
    console.print(f"{_safe(found['source'])}: {sizes}, {size(found['size_bytes'])}")
    console.print(_layers(found))
    console.print(_groups(found["groups"]))
    console.print(_frozen(found["frozen"], console.width) if found["frozen"] else "Nothing is frozen.")
    if found["unknown_ops"]:
        console.print(
            f"Operations without a rule (all they touch is frozen): {_safe(', '.join(found['unknown_ops']))}"
        )
    show_tried(found.get("tried"))
    if "roofline" in found:
        _show_roofline(console, found["roofline"])
    if "adjustments" in found:
        _show_adjustments(console, found)


def _show_adjustments(console: Console, found: Mapping[str, Any]) -> None:
    """What could be done, by the time that it leaves, and why nothing can be done elsewhere, by how often."""
    rows = [row for row in found["adjustments"] if "says" in row]
    judged = any(row.get("error") is not None for row in rows)
    columns = ["params", "MACs", "of the MACs", "ms", *(["error"] if judged else [])]
    columns += ["loss"] if any(row.get("loss") is not None for row in rows) else []
    drawn = Table("what", *map(_right, columns), "function", title="Adjustments")
    for row in sorted(rows, key=lambda row: row["milliseconds"]):
        figures = {
            "params": count(row["params"]),
            "MACs": count(row["macs"]),
            "ms": f"{row['milliseconds']:.3g}",
        }
        figures["of the MACs"] = f"{row['macs'] / max(1, found['macs']):.3f}"
        figures |= {name: _share(row.get(name)) for name in ("error", "loss")}
        kept = "kept" if row["exact"] else "changed"
        drawn.add_row(_safe(row["says"]), *(figures[name] for name in columns), kept)
    console.print(drawn if rows else "Nothing can be adjusted.")
    if rows:
        loss = f", its loss {rows[0]['now_loss']:.3g}" if rows[0].get("now_loss") is not None else ""
        console.print(
            f"As it is the network takes {rows[0]['now']:.3g} ms for one example on one thread{loss}."
        )
    why = Counter((row["kind"], row["why"]) for row in found["adjustments"] if "why" in row)
    left = Table("kind", "modules", "why not", title="Left alone")
    for (kind, cause), times in why.most_common(MOST_CAUSES):
        left.add_row(kind, str(times), _safe(cause))
    if why:
        console.print(left)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _show_roofline(console: Console, found: Mapping[str, Any]) -> None:
    """The bound by kinds of operators, and how far the measured time is from it."""
    console.print(_bounds(found))
    shares = ", ".join(f"{share:.0%} {by}" for by, share in found["shares"].items())
    console.print(
        f"At batch {found['batch_size']} on {found['threads']} threads eager PyTorch takes "
        f"{found['measured_ms']:.3g} ms, {found['distance']:.2g} times the {found['bound_ms']:.3g} ms that peaks "
        f"measured here allow. What holds the bound: {shares}. Caches can beat it; thin layers do not reach it."
    )


def _bounds(found: Mapping[str, Any]) -> Table:
    kinds: dict[tuple[str, str], list[float]] = {}
    for one in found["operators"]:
        sums = kinds.setdefault((one["op"], one["by"]), [0, 0, 0, 0.0])
        for place, value in enumerate((1, one["macs"], one["bytes"], one["bound_ms"])):
            sums[place] += value
    drawn = Table(
        "operator", "held by", *map(_right, ("calls", "MACs", "traffic", "bound, ms")), title="Roofline"
    )
    for (op, by), (calls, macs, traffic, bound) in sorted(kinds.items(), key=lambda kind: -kind[1][3])[:12]:
        drawn.add_row(_safe(op), by, str(int(calls)), count(int(macs)), size(int(traffic)), f"{bound:.3g}")
    return drawn


def show_comparison(found: Mapping[str, Any]) -> None:
    """Both networks' figures, then how they differ."""
    console = _console()
    console.print(table(found))
    if found.get("note"):
        console.print(f"note: {_safe(found['note'])}")
    a, b = (_safe(row["name"]) for row in found["rows"])
    for key, timed in found["speedup"].items():
        span = f"{timed['low']:.2f}-{timed['high']:.2f}"
        batch = key.removeprefix("batch_")
        console.print(f"At batch {batch} {b} is {timed['ratio']:.2f}x ({span}) as fast as {a}.")
    console.print(
        f"Same answer on {found['agreement']:.1%} of {found['data']['n']} examples; "
        f"only {a} right: {found['only_a_right']}, only {b} right: {found['only_b_right']}."
    )


def show_certificates(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Every run's verdict, what it rests on, and what weakens it."""
    console = _console()
    for run, certificate in found.items():
        console.print(f"{_safe(run)}: {_safe(certificate['data'])}, {certificate['split']} examples")
        for line in certificate_lines(certificate):
            console.print(f"  {_safe(line)}")
        for note in certificate["notes"]:
            console.print(f"  note: {_safe(note)}")
        console.print(f"  {_safe(certificate['path'])}")


def show_reports(runs: Mapping[str, Mapping[str, Any]], pages: Sequence[str]) -> None:
    """One run in words and tables, several as a row each."""
    console = _console()
    if len(runs) == 1:
        for part in report_lines(next(iter(runs.values()))):
            console.print(part if not isinstance(part, str) else escape(part))
    else:
        told = {run: {**found["metrics"], "model": found["recipe"]["model"]} for run, found in runs.items()}
        console.print(runs_table(told))
    for page in pages:
        console.print(f"page: {_safe(page)}")


def show_explanation(found: Mapping[str, Any]) -> None:
    """Groups by what is left of them, what is frozen and why, and where answers changed."""
    console, explain = _console(), found.get("explain")
    parts = (curves(explain), frozen_table(explain), agreement(explain))
    groups, frozen, looks = parts
    if explain is None:
        console.print(_safe(found["unfinished"]) or "Nothing was explained in this run.")
        return
    for text in explain["removed"]["changes"]:
        console.print(f"changed: {_safe(text)}")
    if groups is not None:
        console.print(groups["table"])
    if frozen is not None:
        console.print(frozen)
    console.print(escape(flips(found["metrics"], explain, found.get("stability"))["told"]))
    for one in explain["flips"]["shown"]:
        answers = f"is {one['label']}, before {one['before']}, after {one['after']}"
        console.print(f"  {_safe(one['name'])}: {_safe(answers)}{_quoted(one)}")
    if looks is not None:
        console.print(escape(looks["told"]))
        if looks["table"] is not None:
            console.print(looks["table"])


def _quoted(one: Mapping[str, Any]) -> str:
    return f'  "{_safe(cut(one["text"], 80))}"' if "text" in one else ""


def _layers(found: Mapping[str, Any]) -> Listing:
    rows = []
    for layer in found["layers"]:
        shape = " ".join("x".join(map(str, shape)) for shape in layer["shapes"][:1])
        share = layer["macs"] / found["macs"] if found["macs"] else 0.0
        sizes = (count(layer["params"]), count(layer["macs"]), f"{share:.1%}")
        rows.append((clean(layer["path"]), clean(layer["kind"]), shape, *sizes))
    numbers = ("params", "MACs", "share")
    headings = ("layer", "kind", "shape", *numbers)
    return Listing(
        title="Layers", headings=headings, rows=rows, right=numbers, use=("kind", "shape", "share")
    )


def _groups(groups: list[Mapping[str, Any]]) -> Listing:
    rows = [
        (
            clean(group["name"]),
            group["granularity"],
            str(group["units"]),
            group["fidelity"],
            str(len(group["tensors"])),
        )
        for group in groups
    ]
    return Listing(
        title="What may shrink",
        headings=("group", "granularity", "units", "fidelity", "tensors"),
        rows=rows,
        right=("units", "tensors"),
        use=("tensors", "fidelity", "granularity"),
    )


def _frozen(frozen: list[Mapping[str, Any]], width: int) -> Table:
    drawn = Table(title="What may not shrink", title_justify="left")
    for heading in ("module", "what", "why"):
        drawn.add_column(heading, overflow="fold")
    for module in frozen:
        causes: dict[str, list[str]] = {}
        for item in module["dims"]:
            name = item["parameter"].rpartition(".")[2]
            causes.setdefault(item["cause"], []).append(f"{name} dim {item['dim']} ({item['count']})")
        for cause, what in causes.items():
            name = from_right(clean(module["module"]), max(12, width // 3))
            drawn.add_row(escape(name), _safe("\n".join(what), lines=True), _safe(cause))
    return drawn


def _safe(text: object, *, lines: bool = False) -> str:
    """Words of others, neither obeyed by the terminal nor read as markup."""
    return escape(clean(text, lines=lines))


def _right(heading: str) -> Any:
    from rich.table import Column

    return Column(heading, justify="right", no_wrap=True)


def show_export(found: Exported) -> None:
    """Where the file is, what may vary in it, and how near its answers are to PyTorch's."""
    console = _console()
    vary = f"any {' and '.join(found.varying)}" if found.varying else "fixed sizes"
    console.print(f"{_safe(str(found.path))}: {size(found.path.stat().st_size)}, {vary}")
    console.print(f"Beside PyTorch its answers differ by {found.error:.2g} of their size at most.")
    for note in found.notes:
        console.print(f"note: {_safe(note)}")


def read_record(found: Exported) -> dict[str, Any]:
    """What the record beside the file says, with the file's place."""
    return {"path": str(found.path), **json.loads(found.record.read_text(encoding="utf-8"))}


def _console() -> Console:
    """Tables keep their width where nobody looks at a terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=160)
    return console
