"""What `penjing inspect --adjustments` shows."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penjing.cli._app import app

NET = """
from torch import nn
def make():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 5),
    )
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"file:{tmp_path / 'net.py'}:make"


def test_options_and_reasons_are_listed(source: str) -> None:
    asked = ["inspect", source, "--adjustments", "--image-size", "16"]
    shown = CliRunner().invoke(app, asked, env={"COLUMNS": "140"}).output
    assert "0 to 1: batch norm folded into it" in shown
    assert "2: its activation became relu" in shown
    assert "Left alone" in shown
    rows = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)["adjustments"]
    fold = next(row for row in rows if row["kind"] == "fold_norm")
    whole = next(row for row in rows if row["kind"] == "activation")
    assert fold["exact"]
    assert whole["params"] - fold["params"] == 2 * 16
    assert next(row for row in rows if row["kind"] == "separable")["macs"] < whole["macs"]
    assert all(("why" in row) != ("says" in row) for row in rows)
