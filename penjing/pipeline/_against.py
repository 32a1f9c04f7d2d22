"""Controls beside the slim network: how far ahead, with an interval, at what time; and who wins."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penjing.pipeline._choose_rival import EQUAL
from penjing.tasks import SequenceTask, Task, headline

RESAMPLES = 100  # enough for a standard error: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, section 6.4
Z = 1.959964


def against(
    task: Task, row: Mapping[str, Any], slim: Mapping[str, Any], answers: Mapping[str, Any], speedup: Any
) -> dict[str, Any]:
    """How the control in `row` does beside the slim network.

    `difference` is by how much it is better in the task's headline metric (a fraction, below 0: worse), and [low, high]
    its 95% interval over the examples, paired; `time_share` its time as a share of the slim network's, from
    interleaved runs. It `wins` where it is better and takes no more time than counts as equal: the interval says
    whether that could be chance.
    """
    name, larger = headline(task)
    sign = 1 if larger else -1
    difference = sign * (row[name] - slim[name])
    span = paired_interval(task, answers["control"], answers["slim"])
    share = 1 / speedup["ratio"]
    return {
        "metric": name,
        "difference": difference,
        "low": span and span[0],
        "high": span and span[1],
        "time_share": share,
        "speedup": speedup,
        "wins": bool(difference > 0 and share <= EQUAL),
    }


def winner(rows: Sequence[Mapping[str, Any]]) -> str:
    """The row that does best at the slim network's time: the control that is furthest ahead of it, else "slim"."""
    ahead = [row for row in rows if row.get("against_slim", {}).get("wins")]
    return max(ahead, key=lambda row: row["against_slim"]["difference"], default={"name": "slim"})["name"]


def paired_interval(
    task: Task, control: Mapping[str, Any], slim: Mapping[str, Any]
) -> tuple[float, float] | None:
    """95% interval of by how much the control is better in the task's headline metric; None where that is not the
    accuracy of single answers or a figure of sequences.
    """
    name, larger = headline(task)
    if isinstance(task, SequenceTask):
        return _resampled(task, control, slim, name, 1 if larger else -1)
    if name != "accuracy" or not isinstance(slim["predictions"], Tensor):
        return None
    right = [answer["predictions"] == answer["targets"] for answer in (control, slim)]
    return matched_pairs(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()), len(right[0]))


def matched_pairs(only_first: int, only_second: int, n: int) -> tuple[float, float]:
    """95% interval of the difference of two shares over the same `n` examples, by those that one alone got right.

    Half an example is added to each of the four cells (Agresti & Min, "Simple improved confidence intervals for
    comparing matched proportions", Statistics in Medicine, 2005).
    """
    first, second, all_ = only_first + 0.5, only_second + 0.5, n + 2
    middle = (first - second) / all_
    reach = Z * math.sqrt((first + second) - (first - second) ** 2 / all_) / all_
    return max(-1.0, middle - reach), min(1.0, middle + reach)


def _resampled(
    task: Task, control: Mapping[str, Any], slim: Mapping[str, Any], name: str, sign: int
) -> tuple[float, float]:
    """By the standard error over resampled examples, pairs kept together."""
    truth = slim["targets"]
    drawn = torch.Generator().manual_seed(0)

    def difference(chosen: Sequence[int]) -> float:
        own, other = (
            task.metric(*(tuple(parts[i] for i in chosen) for parts in (answer["predictions"], truth)))[name]
            for answer in (control, slim)
        )
        return sign * (float(own) - float(other))

    whole = difference(range(len(truth)))
    found = torch.tensor(
        [
            difference(torch.randint(len(truth), (len(truth),), generator=drawn).tolist())
            for _ in range(RESAMPLES)
        ]
    )
    reach = Z * float(found.std())
    return whole - reach, whole + reach
