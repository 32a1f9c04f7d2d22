"""The page of sparse networks, and which rows it has."""

from pathlib import Path

from benchmarks import sparsity


def test_zeros_come_as_asked_for_and_rows_side_by_side():
    names = [key.file(Path()).name for key in sparsity.planned()]
    assert len(set(names)) == len(names) == 18
    key = sparsity.Key("wanda", "2:4", "cut")
    assert (key.sparsity.pattern, key.sparsity.share, key.sparsity.method) == ("2:4", 0.0, "wanda")
    row = {"method": "wanda", "zeros": "0.5", "share": 0.2, "zipped_bytes": 3e6, "packed_bytes": 2e6}
    made = [
        {**row, "stage": stage, "accuracy": value, "time": [1.0, 0.9, 1.1]}
        for stage, value in (("cut", 0.5), ("trained", 0.75))
    ]
    told = {"calibration": 1, "certified": 1, "tables": 0.5, "taught": 1, "error": 1.0}
    text = sparsity.page(made, told)
    assert "| 50% | wanda | 50.0 | 75.0 | 20.0% | 3.0 | 2.0 | 1.00x (0.90 to 1.10) |" in text
    assert "| wanda | 50.0 |  |" in sparsity.page(made[:1], told)
