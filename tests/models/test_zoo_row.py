"""A row of the zoo times the stages of `pj.prune` itself and names what stays."""

import torch
from torch import nn

import penjing as pj
from benchmarks.zoo_table import table
from benchmarks.zoo_worker import Stopwatch, shape_of


def test_the_stages_of_prune_are_timed_where_they_run():
    watch = Stopwatch()
    with watch.watching():
        pj.prune(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(2, 4), ratio=0.5)
    assert set(watch.seconds) == {"trace", "plan", "surgery", "verify"}


def test_what_stays_is_counted_with_its_cause():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    found = shape_of(pj.trace(net, torch.randn(2, 4)))
    assert found["shrinkable"] == 1 - 4 / 76  # all but the last bias
    assert found["frozen"] == [["network output: its size is part of the contract with the caller", 4 / 76]]


def test_the_page_tells_failures_from_what_was_proven():
    done = {
        "status": "verified", "params": 100, "macs": 10**9, "groups": 2, "shrinkable": 0.5, "error": 1e-16,
        "seconds": dict.fromkeys(("trace", "plan", "surgery", "verify"), 0.25), "params_kept": 0.3, "macs_kept": 0.3,
        "skipped": [["a:0", "differs"]], "frozen": [["rolls this dim", 0.5]],
    }  # fmt: skip
    page = table({"own:a": done, "own:b": {"status": "failed: no"}})
    assert "1 of 2 networks verified" in page
    assert "| own:b | failed: no |" in page
    assert "50.0%: rolls this dim" in page
    assert "| own:a | a:0 | differs |" in page
