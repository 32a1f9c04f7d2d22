"""What a run tried before it chose a method, as a table and in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.core import clean
from penjing.report._layout import Stacked

TITLE = "What was tried, by {metric} on {examples} selection examples:"
SIZES = (("macs", "MACs"), ("params", "params"))


def tried_table(tried: Mapping[str, Any]) -> Stacked:
    """A row per try; why it was dropped stands at the end."""
    title = TITLE.format(metric=clean(tried["metric"]), examples=tried["examples"])
    return Stacked(title=title, headings=_headings(tried), rows=_rows(tried), words=("outcome",))


def tried_why(tried: Mapping[str, Any]) -> tuple[str, ...]:
    """Why the chosen one was chosen."""
    return tuple(clean(text) for text in tried["why"])


def _headings(tried: Mapping[str, Any]) -> tuple[str, ...]:
    trained = (f"{rung['steps']} steps" for rung in tried["rungs"][1:])
    return ("method", *(name for _, name in SIZES), "untrained", *trained, "seconds", "outcome")


def _rows(tried: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [_row(tried, one) for one in tried["candidates"]] + [
        _loss_row(tried, one) for one in tried["losses"]
    ]


def _row(tried: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[str, ...]:
    sizes = (f"{one[f'{key}_ratio']:.2f}x" if f"{key}_ratio" in one else "" for key, _ in SIZES)
    took = sum(s for key, s in tried.get("seconds", {}).items() if _of(key, one["name"]))
    return (clean(one["name"]), *sizes, *_scores(tried, one), f"{took:.0f}" if took else "", _outcome(one))


def _of(key: str, name: str) -> bool:
    """Whether the try `key`, NAME.RUNG, is one of the candidate's own."""
    return key.rpartition(".")[0] == name


def _loss_row(tried: Mapping[str, Any], one: Mapping[str, Any]) -> tuple[str, ...]:
    took = sum(s for key, s in tried.get("seconds", {}).items() if key.endswith(f".{one['name']}"))
    seconds = f"{took:.0f}" if took else ""
    return (f"loss {clean(one['name'])}", *("" for _ in SIZES), *_scores(tried, one), seconds, _outcome(one))


def _scores(tried: Mapping[str, Any], one: Mapping[str, Any]) -> Sequence[str]:
    by_rung = {score["rung"]: score.get(tried["metric"]) for score in one["scores"]}
    found = (by_rung.get(rung["rung"]) for rung in tried["rungs"])
    return [f"{value:.2%}" if value is not None else "" for value in found]


def _outcome(one: Mapping[str, Any]) -> str:
    return "chosen" if one["chosen"] else clean(one["dropped"] or "")
