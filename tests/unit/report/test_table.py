"""The words and the table that a run ends with."""

import io
import re

import pytest
from rich.console import Console

from penjing.report import table, verdict

LATENCY = {"median": 20.0, "mad": 0.4, "batch_size": 32, "device": "cpu", "runtime": "eager", "threads": 2}


def _row(name: str, accuracy: float | None, macs: int = 400_000_000, **more):
    per_class = None if accuracy is None else {"cat": accuracy, "dog": accuracy - 0.1}
    row = {"name": name, "params": 3_400_000, "macs": macs, "size_bytes": 13_600_000, "latency_ms": LATENCY}
    return (
        row
        | {"peak_memory": None, "accuracy": accuracy, "macro_recall": accuracy, "per_class": per_class}
        | more
    )


def _metrics(scratch: float, low: float = 2.0) -> dict:
    speedup = {
        "batch_32": {"ratio": 2.1, "low": low, "high": 2.2},
        "batch_1": {"ratio": 1.3, "low": 1.2, "high": 1.4},
    }
    rows = [
        _row("base", None),
        _row("transferred", 0.986),
        _row("slim", 0.983, 196_000_000, speedup=speedup),
        _row("control:scratch", scratch, 196_000_000),
    ]
    return {
        "reference": "transferred",
        "data": {"name": "digits", "split": "certification", "n": 2000},
        "rows": rows,
    }


def test_the_verdict_is_one_plain_sentence():
    said = verdict(_metrics(scratch=0.9))
    assert said == (
        "slim: 49% of the MACs, 2.1x faster at batch 32 (2.0-2.2), 1.3x faster at batch 1 (1.2-1.4), "
        "accuracy 98.3% vs 98.6% (-0.3 points)"
    )


def test_zeros_are_told_by_their_sizes_and_the_measured_run_time():
    time = {"batch_32": {"ratio": 1.004, "low": 0.97, "high": 1.03}}
    sizes = {"share": 0.48, "zipped_bytes": 7_100_000, "packed_bytes": 6_900_000, "time": time}
    zeros = sizes | {"dense": {"zipped_bytes": 12_500_000}}
    assert verdict(_metrics(scratch=0.9) | {"sparsity": zeros}) == verdict(_metrics(scratch=0.9)) + (
        "; 48% of its parameters are zero: 7.10 MB zipped (without zeros 12.5 MB), 6.90 MB packed, "
        "1.00x as fast at batch 32 (0.97-1.03)"
    )


def test_a_control_that_wins_is_named_first():
    assert verdict(_metrics(scratch=0.99)).startswith(
        "control:scratch beats slim (accuracy 99.0% vs 98.3%). slim:"
    )
    assert verdict(_metrics(scratch=0.983)).startswith("control:scratch does as well as slim")


def test_a_ready_made_rival_that_wins_says_what_it_is_by_how_much_and_at_what_time():
    beside = {"difference": 0.012, "low": 0.003, "high": 0.021, "time_share": 0.97, "wins": True}
    rival = _row("control:smaller", 0.995, 100_000_000, source="timm:resnet14t", pretrained=True)
    metrics = _metrics(scratch=0.9)
    metrics["rows"].append(rival | {"against_slim": beside})
    assert verdict(metrics).startswith(
        "control:smaller, timm:resnet14t (pretrained), beats slim (accuracy 99.5% vs 98.3%, "
        "+1.2 points [+0.3, +2.1] at 0.97x its time). slim:"
    )
    metrics["rows"][-1]["against_slim"] = beside | {"wins": False, "time_share": 1.3}
    assert verdict(metrics).startswith("slim:")


def test_a_reference_that_guesses_is_told_first():
    metrics = _metrics(scratch=0.9)
    metrics["rows"][1] |= {"accuracy": 0.52, "macro_recall": 0.52}
    assert verdict(metrics).startswith("transferred is no better than guessing (macro recall 52.0%)")


def test_a_speedup_within_noise_is_not_called_one():
    assert "not faster (2.10x) at batch 32" in verdict(_metrics(scratch=0.9, low=0.95))


def test_the_plain_table_lines_up_and_leaves_unknowns_empty():
    title, head, rule, *rows = table(_metrics(scratch=0.9)).plain().splitlines()
    assert "2000 certification examples" in title
    assert len(head) == len(rule) == max(map(len, rows))
    assert {row[head.index("MACs") + 4 :][:2] for row in rows} == {"  "}
    assert [row.split()[0] for row in rows] == ["base", "transferred", "slim", "control:scratch"]
    assert "%" not in rows[0]
    assert "dog: 88.6%" in rows[1]


def test_the_rich_table_says_the_same():
    console = Console(file=io.StringIO(), width=160)
    console.print(table(_metrics(scratch=0.9)))
    drawn = console.file.getvalue()
    assert "196.00M" in drawn
    assert "98.30%" in drawn


WIDE = re.compile(r"3\.40M|196\.00M|13\.6 MB|20\.0 ±0\.4 ms|98\.30%|dog: 88\.3%")


@pytest.mark.parametrize(("width", "tables"), [(60, 3), (80, 2), (100, 2), (120, 1), (200, 1)])
def test_no_figure_is_cut_at_any_width(width: int, tables: int):
    console = Console(file=io.StringIO(), width=width)
    console.print(table(_metrics(scratch=0.9)))
    drawn = console.file.getvalue()
    assert "…" not in drawn
    assert len(set(WIDE.findall(drawn))) == 6
    assert drawn.count("│ control:scratch │") == tables
    assert max(map(len, drawn.splitlines())) <= width


def test_names_of_others_are_harmless_and_cut_on_the_left():
    metrics = _metrics(scratch=0.9)
    metrics["data"]["name"] = "da\x1bta\n"
    metrics["rows"][0]["name"] = "runs/" + "long" * 20 + "/end\x1b"
    metrics["rows"][1]["per_class"] = {"\x1b[31m" + "c" * 500: 0.1}
    console = Console(file=io.StringIO(), width=80)
    console.print(table(metrics))
    drawn = console.file.getvalue()
    assert "\x1b" not in drawn + table(metrics).plain() + verdict(metrics)
    assert r"/end\x1b │" in drawn
    assert max(map(len, drawn.splitlines())) <= 80


def test_small_networks_show_their_size():
    metrics = _metrics(scratch=0.9)
    metrics["rows"][0] |= {
        "size_bytes": 4_321,
        "latency_ms": LATENCY | {"median": 0.0731, "mad": 0.002},
        "peak_memory": {"bytes": 98_765},
    }
    row = table(metrics).plain().splitlines()[3]
    assert "4.32 kB" in row
    assert "73.1 ±2.0 µs" in row
    assert "98.8 kB" in row
