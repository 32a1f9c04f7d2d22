"""A finished run's page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.core import Recipe, RunError
from penjing.pipeline._deliver import CERTIFICATE
from penjing.pipeline._files import read_json, read_sealed, writable, write
from penjing.pipeline._run import check_files, read_ledger, resume_command, stored_recipe
from penjing.report import report_page

PAGE = "report.html"


def write_report(run: str | Path) -> Path:
    """Writes report.html of the finished run in the folder `run` from its files; returns its path.

    Raises RunError for a folder without one.
    """
    page = Path(run) / PAGE
    with writable(page.parent):
        write(page, report_page(read_report(run)).encode())
    return page


def read_report(run: str | Path) -> dict[str, Any]:
    """All that a report of the run in the folder `run` shows, from its files; raises RunError for a folder without
    one."""
    folder = Path(run)
    if not (folder / "run.json").exists():
        raise RunError(f"{folder} holds no run. Fix: name a run's folder (--out of penjing shape)")
    ledger = read_ledger(folder)
    if not (folder / "metrics.json").exists():
        raise RunError(f"{folder} holds a run that has not come to its figures yet. Go on with --resume.")
    volatile = read_sealed(folder / "volatile.json")
    check_files(folder, ledger, volatile)
    return _told(folder, ledger, volatile)


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json, with the certificate where there is one."""
    metrics = read_json(folder / "metrics.json")
    if (folder / CERTIFICATE).exists():
        metrics["certificate"] = read_json(folder / CERTIFICATE)
    return metrics


def unfinished(folder: Path, ledger: Mapping[str, Any], recipe: Recipe) -> str:
    """What is still to come of a run, and how to have it; nothing of a finished one."""
    if ledger["state"] == "finished":
        return ""
    left = [step["name"] for step in ledger["steps"] if step["state"] != "finished"]
    steps = f"{'step' if len(left) == 1 else 'steps'} {', '.join(left)}" if left else "end"
    return f"This run has not come to its {steps}. To go on with it: {resume_command(recipe, folder)}"


def _told(folder: Path, ledger: dict[str, Any], volatile: dict[str, Any]) -> dict[str, Any]:
    recipe = stored_recipe(folder)
    times = volatile.get("steps", {})
    steps = [
        {"name": one["name"], "seconds": times.get(one["name"], {}).get("seconds", 0.0)}
        for one in ledger["steps"]
    ]
    facts = [("seed", ledger["seed"]), *ledger["versions"].items(), *ledger["inputs"].items()]
    facts += [(name, value) for name, value in volatile.items() if isinstance(value, str)]
    optional = {name: folder / f"{name}.json" for name in ("stability", "explain", "adjustments")}
    return {
        "name": folder.resolve().name,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_yaml": recipe.to_yaml(),
        "metrics": read_metrics(folder),
        "steps": steps,
        "facts": [(name, str(value)) for name, value in facts],
        "unfinished": unfinished(folder, ledger, recipe),
        "looks": volatile.get("looks", 0),
        **{name: read_json(path) for name, path in optional.items() if path.exists()},
    }
