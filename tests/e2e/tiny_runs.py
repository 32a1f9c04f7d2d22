"""Runs of the small network that stands beside these tests."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.core import Recipe


def tiny_recipe(values: Mapping[str, Any], folder: Path) -> Recipe:
    """`values` for a copy of the network in `folder`."""
    place = folder / "net.py"
    shutil.copy(Path(__file__).parent / "networks" / "tiny.py", place)
    return Recipe.of({**values, "model": f"file:{place}:tiny"})


def figures(out: Path) -> dict[str, dict[str, Any]]:
    """By step, of the run in `out`."""
    return {step["name"]: step["figures"] for step in json.loads((out / "run.json").read_text())["steps"]}
