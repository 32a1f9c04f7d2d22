"""report.html: one file that holds everything it shows."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from penjing.core import clean
from penjing.report._page_parts import (
    adjustments_table,
    agreement,
    block_rows,
    calibration,
    curves,
    depth_chart,
    disturbed,
    facts_table,
    flips,
    frozen_table,
    layer_rows,
    steps_table,
)
from penjing.report._page_proof import certificate_part, pareto, parts_rows, rows_table, seeds_told, tiles
from penjing.report._scalability import scalability_table
from penjing.report._table import uncertified, verdict
from penjing.report._tried import tried_table, tried_why

TEMPLATES = Path(__file__).parent / "templates"
UNEXPLAINED = {
    "never": "Nothing was explained in this run.",
    "later": "This run has not come to explaining yet.",
}
SECTIONS = {
    "networks": "Networks",
    "certificate": "Certificate",
    "structure": "Structure",
    "latency": "Time",
    "sensitivity": "Sensitivity",
    "flips": "Flips",
    "stability": "Stability",
    "looks": "Attention",
    "tried": "Tried",
    "made": "Recipe",
}


def report_page(run: Mapping[str, Any]) -> str:
    """The page of a run: one HTML file without scripts that asks nothing of a network.

    `run` holds the run's name, recipe (a mapping), recipe_yaml, steps (name and seconds of each), metrics
    (metrics.json, with its certificate where there is one), and stability, explain and adjustments where those files
    exist; `unfinished` says what is still to come of it, "" of a finished run. Words of others (names of classes, of
    files) are shown, never obeyed.
    """
    return _template().render(**_header(run), **_sections(run))


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html")


def _header(run: Mapping[str, Any]) -> dict[str, Any]:
    from markupsafe import Markup

    metrics, recipe = run["metrics"], run["recipe"]
    found, model, data = metrics.get("certificate"), clean(recipe["model"]), clean(metrics["data"]["name"])
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    told = found["verdict"] if found else "none"
    unfinished = run.get("unfinished", "")
    warnings = [*([unfinished] if unfinished else []), *metrics.get("notes", ())]
    sections = [{"id": key, "name": name} for key, name in SECTIONS.items()]
    return {
        "title": f"{model} on {data} · Penjing",
        "css": Markup(css),
        "version": version("penjing"),
        "name": clean(run["name"]),
        "model": model,
        "data": data,
        "budget": clean(metrics["budget"]),
        "verdict": told,
        "verdict_told": told.capitalize() if found else uncertified(run),
        "lead": _lead(metrics),
        "why": f"{clean(found['why'])[0].upper()}{clean(found['why'])[1:]}." if found else "",
        "warnings": [clean(text) for text in warnings],
        "tiles": tiles(metrics),
        "sections": sections,
    }


def _lead(metrics: Mapping[str, Any]) -> str:
    """The verdict's sentence without the certificate's reason, which follows it."""
    told = verdict({**metrics, "margin": None})
    return told[0].upper() + told[1:] + "."


def _sections(run: Mapping[str, Any]) -> dict[str, Any]:
    metrics, explain, stability = run["metrics"], run.get("explain"), run.get("stability")
    found, unfinished = metrics.get("certificate"), run.get("unfinished", "")
    chart, told = pareto(metrics)
    tried = metrics.get("tried")
    return {
        "rows": rows_table(metrics),
        "pareto": chart,
        "pareto_told": told,
        "seeds": seeds_told(metrics),
        "elsewhere": scalability_table(metrics) if metrics.get("scalability") else None,
        "certificate": certificate_part(found, run.get("looks", 0)) if found else None,
        "uncertified": uncertified(run),
        "unexplained": UNEXPLAINED["later" if unfinished else "never"],
        "classes": parts_rows(found, "classes") if found else None,
        "slices": parts_rows(found, "slices") if found else None,
        "changes": [clean(text) for text in (explain or {}).get("removed", {}).get("changes", ())],
        "layers": layer_rows(explain),
        "blocks": block_rows(metrics.get("blocks")),
        "curves": curves(explain),
        "frozen": frozen_table(explain),
        "flips": flips(metrics, explain, stability),
        "disturbed": disturbed(stability),
        "calibration": calibration(stability),
        "other_data": _other(stability),
        "agreement": agreement(explain),
        "alike": depth_chart(explain),
        "alike_told": "Linear CKA of what both networks give in the same place, from input to output: 1 is alike up to "
        "rotation and scale. A diagnosis, not a test.",
        "tried": {"table": tried_table(tried), "why": tried_why(tried)} if tried else None,
        "adjustments": adjustments_table(run.get("adjustments")),
        "steps": steps_table(run["steps"]),
        "recipe": run["recipe_yaml"],
        "facts": facts_table(run),
    }


def _other(stability: Mapping[str, Any] | None) -> str:
    found = (stability or {}).get("elsewhere")
    if not found:
        return ""
    scores = f"{found['reference']:.1%} before, {found['slim']:.1%} after"
    return f"On {clean(found['data'])} ({found['n']} examples): {scores}."
