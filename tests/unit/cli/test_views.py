"""What `inspect` draws fits the terminal and keeps names."""

import io

import pytest
from rich.console import Console

from penjing.cli import _views
from penjing.cli._views import show_structure

DEEP = "backbone.features.stages.3.blocks.11.attention.projection"
FOUND = {
    "source": "file:\x1b[31mnet.py:make",
    "input_size": [3, 32, 32],
    "params": 12,
    "macs": 10,
    "size_bytes": 48,
    "unknown_ops": ["odd\x07::op"],
    "layers": [{"path": DEEP, "kind": "Conv2d", "shapes": [[64, 64, 3, 3]], "params": 12, "macs": 10}],
    "groups": [
        {
            "name": f"{DEEP}.weight:0",
            "granularity": "channel",
            "units": 64,
            "fidelity": "exact",
            "tensors": [1],
        }
    ],
    "frozen": [
        {
            "module": DEEP,
            "dims": [{"parameter": f"{DEEP}.weight", "cause": "a\x1b cause", "dim": 1, "count": 3}],
        }
    ],
}


@pytest.mark.parametrize("width", [40, 80, 160])
def test_names_keep_their_end_and_lines_their_width(monkeypatch: pytest.MonkeyPatch, width: int):
    drawn = io.StringIO()
    monkeypatch.setattr(_views, "_console", lambda: Console(file=drawn, width=width, highlight=False))
    show_structure(FOUND)
    lines = drawn.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any("projection" in line for line in lines)
    assert any(".weight:0" in line for line in lines)
    assert "48 B" in drawn.getvalue()
    assert not set(drawn.getvalue()) & {"\x1b", "\x07"}


def test_the_roofline_adds_up_operators_of_a_kind(monkeypatch: pytest.MonkeyPatch):
    drawn = io.StringIO()
    monkeypatch.setattr(_views, "_console", lambda: Console(file=drawn, width=160, highlight=False))
    product = {"op": "aten.mm", "macs": 3_000_000, "bytes": 500_000, "bound_ms": 1.5, "by": "compute"}
    found = {
        "bound_ms": 4.0,
        "measured_ms": 10.0,
        "distance": 2.5,
        "shares": {"compute": 0.75, "memory": 0.25, "overhead": 0.0},
        "threads": 1,
        "batch_size": 1,
        "operators": [product, product, {**product, "op": "aten.add", "by": "memory", "bound_ms": 1.0}],
    }
    show_structure({**FOUND, "roofline": found})
    text = " ".join(drawn.getvalue().split())
    assert "aten.mm │ compute │ 2 │ 6.00M │ 1.00 MB │ 3" in text
    assert "10 ms, 2.5 times the 4 ms" in text
    assert "75% compute, 25% memory, 0% overhead" in text
