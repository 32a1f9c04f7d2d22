"""Every recipe for texts and sounds from start to end, on real data; writes tasks.md.

Each case is a run folder below --out, made by `penjing shape` in a process of its own with one thread, and goes on
where it was cut off. The packages of the data must have been fetched (`penjing data fetch`). Run with `make tasks`.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPES = HERE.parent / "recipes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One recipe at one budget: `points` are the most that may be lost, `speed` the least speed-up at batch 32."""

    name: str
    recipe: str
    budget: str | None = None
    points: float | None = None
    speed: float | None = None


CASES = (
    Case(name="trec-half", recipe="trec-minilm", points=1.0, speed=1.7),
    Case(name="trec-quarter", recipe="trec-minilm-quarter", points=3.0),
    Case(name="sms-quarter", recipe="sms-minilm"),
    Case(name="entities", recipe="entities-minilm"),
    Case(name="finals-cnn", recipe="finals-cnn", points=1.0),
    Case(name="finals-ast", recipe="finals-ast", points=1.0),
    Case(name="keywords-cnn", recipe="keywords-cnn", points=1.0),
    Case(name="keywords-ast", recipe="keywords-ast", points=1.0),
    Case(name="speakers-lstm", recipe="speakers-lstm", points=1.0),
    Case(name="digits-ctc", recipe="digits-ctc", points=0.5),
)
HEAD = (
    "case", "data (certified on)", "network", "metric", "reference", "slim", "points lost", "goal", "MACs",
    "faster at 32", "at 1", "control:scratch", "minutes",
)  # fmt: skip


def run(case: Case, out: Path) -> int:
    """The exit code of `penjing shape` on the case; its words go to a log beside the run."""
    folder = out / case.name
    command = [
        sys.executable,
        "-m",
        "penjing",
        "shape",
        str(RECIPES / f"{case.recipe}.yaml"),
        "--out",
        str(folder),
    ]
    command += ["--budget", case.budget] if case.budget else []
    command += ["--resume"] if (folder / "run.json").exists() else []
    with (out / f"{case.name}.log").open("a", encoding="utf-8") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def lost(metrics: Mapping[str, Any]) -> float:
    """Points by which slim is worse than the reference in the metric that counts; below 0 where it is better."""
    rows = {row["name"]: row for row in metrics["rows"]}
    told = metrics["headline"]
    points = 100 * (rows[metrics["reference"]][told["metric"]] - rows["slim"][told["metric"]])
    return points if told["larger_is_better"] else -points


def line(case: Case, folder: Path) -> tuple[str, ...]:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows, metric = {row["name"]: row for row in metrics["rows"]}, metrics["headline"]["metric"]
    slim, whole = rows["slim"], rows[metrics["reference"]]
    scratch, data = rows.get("control:scratch"), metrics["data"]
    goal = "" if case.points is None else f"{case.points:g}" + (f", {case.speed:g}x" if case.speed else "")
    fast = [slim["speedup"].get(f"batch_{size}") for size in (32, 1)]
    recipe = json.loads((folder / "model" / "structure.json").read_text(encoding="utf-8"))
    return (
        case.name,
        f"{data['name']} ({data['n']})",
        recipe["source"],
        metric,
        f"{whole[metric]:.2%}",
        f"{slim[metric]:.2%}",
        f"{lost(metrics):+.2f}",
        goal,
        f"{slim['macs_ratio']:.2f}x of {whole['macs'] / 1e6:.1f}M",
        *(f"{f['ratio']:.2f} ({f['low']:.2f} to {f['high']:.2f})" if f else "" for f in fast),
        f"{scratch[metric]:.2%}" if scratch else "",
        f"{_minutes(folder):.0f}",
    )


def _minutes(folder: Path) -> float:
    steps = json.loads((folder / "volatile.json").read_text(encoding="utf-8"))["steps"]
    return sum(step["seconds"] for step in steps.values()) / 60


def table(cases: Sequence[Case], out: Path) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|" + "---|" * len(HEAD)
    for case in cases:
        folder = out / case.name
        done = (folder / "metrics.json").exists() and (folder / "model" / "structure.json").exists()
        yield "| " + " | ".join(line(case, folder) if done else (case.name, "not run")) + " |"


ABOUT = """\
# Texts and sounds, each recipe from start to end

`python -m benchmarks.tasks`, {today}: one seed (0), one thread, CPU. Figures are of the certification split, which
nothing else has seen. Points lost are against the transferred network. `faster` is measured, eager, interleaved, with a
95% interval, at batch 32 and 1 and the data's usual length. Keywords and digit strings are synthetic speech. One seed
and one split: orientation, no test.

"""


def report(out: Path) -> str:
    return ABOUT.format(today=date.today()) + "\n".join(table(CASES, out)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--only", nargs="*", default=[case.name for case in CASES])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if case.name in given.only:
            print(case.name, "exit", run(case, given.out), flush=True)
    (HERE / "tasks.md").write_text(report(given.out), encoding="utf-8")


if __name__ == "__main__":
    main()
