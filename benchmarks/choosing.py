"""Does it pay to try methods first? With and without the step choose, at equal CPU seconds.

`python -m benchmarks.choosing [PAIR ...] [--out DIR] [--seed N]`: the transferred networks are those of
`benchmarks.quality` (made where DIR has none); once methods are tried before one is taken, once the rule's method is
taken and its recovery gets the seconds that trying took on top.
"""

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from benchmarks.quality_pairs import PAIRS, Pair, open_case
from penjing.core import Recipe
from penjing.core._step_defaults import method_for
from penjing.pipeline import Event, _taught, shape
from penjing.recover import Fit

BUDGET = "macs<=0.35x"
EPOCHS, SHARE = 3, 1.0  # of the recovery; seconds of trying, as a share of those


class Stopped(Exception):
    """The transferred network is there."""


class Watch:
    """CPU seconds by step."""

    def __init__(self, *, stop: str = "") -> None:
        self.seconds: dict[str, float] = {}
        self.begun, self.stop = 0.0, stop

    def hear(self, event: Event) -> None:
        if event.kind == "start":
            if event.step == self.stop:
                raise Stopped
            self.begun = time.process_time()
        elif event.kind == "finish":
            self.seconds[event.step] = time.process_time() - self.begun
            print(f"  {event.step}: {self.seconds[event.step]:.0f} CPU s", flush=True)
        elif event.kind == "note":
            print(f"  {event.text}", flush=True)


def compare(name: str, out: Path, seed: int) -> dict[str, Any]:
    """Both ways on the pair `name`."""
    chosen, ruled = (out / "choosing" / f"{name}-{seed}-{way}" for way in ("chosen", "ruled"))
    first, state = recipe(name, seed, {}), open_case(_pair(name), seed, out).model.state_dict()

    def given(model: nn.Module, *_: Any, **__: Any) -> Fit:
        model.load_state_dict(state)
        return Fit(model=model.eval(), history=(), best_epoch=0, seconds=0.0)

    _taught.transfer = given
    if not chosen.exists():
        try:
            shape(first, chosen, listen=Watch(stop="choose").hear)
        except Stopped:
            shutil.copytree(chosen, ruled)
    watch = Watch()
    found = shape(first, chosen, resume=True, listen=watch.hear)
    spent = watch.seconds
    own = first.steps.recover.epochs
    epochs = round(own * (1 + spent["choose"] / spent["recover"]))
    rule = {"prune": {"criterion": method_for(first.task)["criterion"]}, "recover": {"epochs": epochs}}
    other = Watch()
    without = shape(recipe(name, seed, rule), ruled, resume=True, listen=other.hear)
    tried = json.loads((chosen / "tried.json").read_text())
    return {
        "pair": name,
        "seed": seed,
        "transferred": _accuracy(found, "transferred"),
        "chosen": {"accuracy": _accuracy(found, "slim"), "why": tried["why"], "epochs": own, "cpu": spent},
        "ruled": {"accuracy": _accuracy(without, "slim"), "epochs": epochs, "cpu": other.seconds},
    }


def recipe(name: str, seed: int, steps: Mapping[str, Mapping[str, Any]]) -> Recipe:
    pair = _pair(name)
    written: dict[str, Any] = {step: dict(options) for step, options in pair.recipe.get("steps", {}).items()}
    fixed: dict[str, dict[str, Any]] = {"recover": {"epochs": EPOCHS}, "choose": {"share": SHARE}}
    fixed |= {
        "controls": {"scratch": False, "smaller": "none"},
        "measure": {"repeats": 5, "rounds": 5, "batch_sizes": [8]},
    }
    for step, options in (*fixed.items(), *steps.items()):
        written[step] = {**written.get(step, {}), **options}
    return Recipe.of({**pair.recipe, "steps": written, "budget": BUDGET, "margin": 1.0, "seed": seed})


def _pair(name: str) -> Pair:
    return next(pair for pair in PAIRS if pair.name == name)


def _accuracy(metrics: Mapping[str, Any], name: str) -> float:
    return next(row["accuracy"] for row in metrics["rows"] if row["name"] == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=["lite0-mnist5k", "minilm-trec"])
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    (asked.out / "choosing").mkdir(parents=True, exist_ok=True)
    for name in asked.pairs:
        print(name, flush=True)
        found = compare(name, asked.out, asked.seed)
        (asked.out / "choosing" / f"{name}-{asked.seed}.json").write_text(json.dumps(found, indent=1))
        print(json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
