"""The model card beside an artifact."""

import html
from collections.abc import Mapping
from typing import Any

from torch import nn

from penjing.core import clean


def model_card(body: Mapping[str, Any], slim: nn.Module, figures: Mapping[str, Any] | None) -> str:
    """Markdown: what the network is, how to load it, and the measured figures where given."""
    params = sum(p.numel() for p in slim.parameters())
    dropped = sum(edit["kind"] == "drop_block" for edit in body["plan"]["edits"])
    groups = sum(edit["kind"] == "remove_units" for edit in body["plan"]["edits"])
    lines = [
        f"# A smaller {body['source']}",
        "",
        f"A dense PyTorch network with {params:,} parameters, cut from `{body['source']}` by Penjing: units removed "
        f"from {groups} groups, {dropped} residual blocks dropped.",
        "",
        "```python",
        "import penjing as pj",
        "",
        'model = pj.load("path/to/this/folder")',
        "```",
        "",
    ]
    if body["task"]:
        lines.append(f"- Task: {body['task']}")
    if body["labels"]:
        shown = ", ".join(html.escape(clean(label)) for label in body["labels"][:20])
        lines.append(
            f"- Labels ({len(body['labels'])}): {shown}{', ...' if len(body['labels']) > 20 else ''}"
        )
    if body["preprocessing"]:
        lines.append(f"- Preprocessing: {', '.join(f'{k} {v}' for k, v in body['preprocessing'].items())}")
    if figures:
        lines += ["", *_table(figures), *_proof(figures.get("certificate"))]
    return "\n".join([*lines, ""])


def _proof(certificate: Mapping[str, Any] | None) -> list[str]:
    """The verdict, and of which file it speaks."""
    if certificate is None:
        return []
    file = certificate["file"]
    return [
        "",
        f"**{certificate['verdict'].capitalize()}**: {html.escape(clean(certificate['why']))}.",
        f"({certificate['test']}, margin {100 * certificate['margin']:g} points of {certificate['metric']}, alpha "
        f"{certificate['alpha']:g}, n = {certificate['n']}; of `{file['path']}`, sha256 `{file['sha256'][:16]}...`, on "
        f"examples with fingerprint `{(certificate['data_fingerprint'] or '')[:16]}...`.)",
    ]


def _table(figures: Mapping[str, Any]) -> list[str]:
    metric = (figures.get("headline") or {}).get("metric", "accuracy")
    lines = [f"| network | params | MACs | {metric} |", "|---|---|---|---|"]
    for row in figures.get("rows", ()):
        score = row.get(metric)
        shown = "-" if score is None else f"{score:.4f}"
        lines.append(f"| {row['name']} | {row.get('params', 0):,} | {row.get('macs', 0):,} | {shown} |")
    return lines
