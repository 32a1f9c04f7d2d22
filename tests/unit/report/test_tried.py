"""The table of what was tried."""

import io

from rich.console import Console

from penjing.report import tried_table, tried_why, verdict

TRIED = {
    "metric": "accuracy",
    "examples": 500,
    "rungs": [{"rung": 0, "steps": 0}, {"rung": 1, "steps": 6}],
    "candidates": [
        {
            "name": "obs",
            "macs_ratio": 0.35,
            "params_ratio": 0.4,
            "scores": [{"rung": 0, "accuracy": 0.9}, {"rung": 1, "accuracy": 0.95}],
            "chosen": True,
            "dropped": None,
        },
        {
            "name": "l2",
            "macs_ratio": 0.35,
            "params_ratio": 0.5,
            "scores": [{"rung": 0, "accuracy": 0.5}],
            "chosen": False,
            "dropped": "not among the best before training",
        },
        {"name": "taylor", "scores": [], "chosen": False, "dropped": "no time was left to try it"},
    ],
    "losses": [
        {"name": "dkd", "scores": [{"rung": 1, "accuracy": 0.94}], "chosen": False, "dropped": "behind kl"}
    ],
    "seconds": {"obs.0": 2.0, "obs.1": 1.4, "obs.1.dkd": 3.0, "l2.0": 1.0},
    "why": ["obs was chosen\x1b: the best"],
}


def test_every_try_is_a_line_with_its_scores_seconds_and_outcome():
    title, head, _, *rows = tried_table(TRIED).plain().splitlines()
    assert title == "What was tried, by accuracy on 500 selection examples:"
    assert head.split("  ")[0] == "method"
    assert rows[0].split() == ["obs", "0.35x", "0.40x", "90.00%", "95.00%", "3", "chosen"]
    assert rows[1].split()[:5] == ["l2", "0.35x", "0.50x", "50.00%", "1"]
    assert rows[2].endswith("no time was left to try it")
    assert rows[3].split() == ["loss", "dkd", "94.00%", "3", "behind", "kl"]
    assert tried_why(TRIED) == (r"obs was chosen\x1b: the best",)


def test_it_is_drawn_within_a_narrow_terminal():
    out = io.StringIO()
    Console(file=out, width=60).print(tried_table(TRIED))
    assert max(map(len, out.getvalue().splitlines())) <= 60


def test_the_loss_is_compared_with_the_margin():
    def metrics(slim: float, margin: float | None) -> dict:
        row = {"macs": 1, "per_class": None, "macro_recall": None}
        rows = [{"name": "transferred", "accuracy": 0.95, **row}, {"name": "slim", "accuracy": slim, **row}]
        data = {"name": "digits", "split": "certification", "n": 2000}
        return {"reference": "transferred", "rows": rows, "data": data, "margin": margin}

    assert verdict(metrics(0.94, 1.0)).endswith(
        "; within the margin of 1 points on 2000 certification examples (measured, no certificate)"
    )
    assert "beyond the margin of 0.5 points" in verdict(metrics(0.94, 0.5))
    assert "margin" not in verdict(metrics(0.94, None))
