"""The cost of reconstruction: small rows, and the page."""

import pytest

from benchmarks import reconstruction
from benchmarks.forked import run_all


@pytest.fixture(scope="module")
def rows():
    names = ["residual:2:2048", "residual:2:16384", "residual:2:16384:30000000", "transformer:2:2048"]
    return dict(run_all(names, reconstruction.measure_one, 1))


def test_a_row_states_what_the_process_grows_by(rows):
    assert {row["status"] for row in rows.values()} == {"done"}
    for row in rows.values():
        assert len(row["seconds"]) == reconstruction.REPEATS
        assert 0 < row["measured"] < 1.5 * row["stated"]
    assert [rows[name]["weights"] for name in ("residual:2:2048", "transformer:2:2048")] == [6, 9]


def test_less_memory_takes_fewer_batches(rows):
    free, bounded = rows["residual:2:16384"], rows["residual:2:16384:30000000"]
    assert free["examples"] == 256
    assert 0 < bounded["examples"] < 256
    assert bounded["stated"] <= 30_000_000 < free["stated"]


def test_the_page_tells_slopes_and_bounds(monkeypatch):
    monkeypatch.setattr(reconstruction, "FAMILIES", ("residual",))
    row = {"status": "done", "weights": 0, "examples": 128, "stated": 2e6, "measured": 1e6}
    found = {
        f"residual:{blocks}:8192": {**row, "weights": 2 * blocks, "seconds": [0.1 * blocks] * 3}
        for blocks in reconstruction.BLOCKS
    }
    found["residual:8:65536:100000000"] = {**row, "seconds": [1.0] * 3}
    found["lite0:512"] = {"status": "failed: no answer"}
    text = reconstruction.page(found)
    assert (
        "| residual | log-log slope | 1.00 (1.00 to 1.00); last two sizes 1.00 (1.00 to 1.00) | | | |" in text
    )
    assert "| residual | 100 | 8 of 64 | 2 | 1 |" in text
    assert "| 512 |" not in text
