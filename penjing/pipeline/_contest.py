"""Candidates tried one by one, each try kept on disk and within the time there is."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from penjing.core import PenjingError, Plan
from penjing.pipeline._against import Z, paired_interval
from penjing.pipeline._bench import Bench
from penjing.pipeline._candidates import Candidate
from penjing.pipeline._job import read_state, state_file, write_state
from penjing.pipeline._pace import Pace
from penjing.pipeline._tries import Tries
from penjing.search import Judge, Mark
from penjing.tasks import headline

UNTRAINED, TRAINED = (
    0.5,
    0.85,
)  # of the time: when tries without training are over, and those of the last rung
SCORING = {"obs": 4.0}  # trainings of an example that scoring units by one takes; of other criteria one
REFITTING = 8.0  # looks at an example that refitting by one takes
RESTING = 5.0  # seconds that a prediction counts for as much as experience
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Contest:
    """`limit` are the seconds there are; `steps` those of each rung's training, rung 0 being without."""

    bench: Bench
    tries: Tries
    field: Mapping[str, Candidate]
    pace: Pace
    limit: float
    steps: tuple[int, ...]
    margin: float | None
    tell: Callable[[str, int, int, Mapping[str, float]], None]

    @property
    def judge(self) -> Judge:
        return Judge(cost=self.cost, noise=self.noise, margin=self.margin)

    def attempt(self, name: str, rung: int) -> Mark | str:
        """The mark of a candidate at a rung, or why it cannot be; tried once and kept."""
        return self._once(f"{name}.{rung}", self._expected(name, rung), lambda: self._tried(name, rung))

    def attempt_loss(self, name: str, loss: str) -> Mark | str:
        """The mark of the cut of candidate `name`, trained for the last rung's steps with `loss`."""
        rung = len(self.steps) - 1
        if loss == AUTO:
            return self.attempt(name, rung)
        return self._once(
            f"{name}.{rung}.{loss}", self._expected(name, rung), lambda: self._trained(name, rung, loss)
        )

    def fits(self, name: str, rung: int) -> bool:
        """Whether a try is over, or there is time for it; a refusal stands, however the run goes on."""
        last = len(self.steps) - 1
        share = UNTRAINED + (TRAINED - UNTRAINED) * rung / max(1, last)
        return self._room(f"{name}.{rung}", self._expected(name, rung), share if last else 1.0)

    def fits_loss(self, name: str, loss: str) -> bool:
        rung = len(self.steps) - 1
        key = f"{name}.{rung}" if loss == AUTO else f"{name}.{rung}.{loss}"
        return self._room(key, self._expected(name, rung), 1.0)

    def record(self, name: str, rung: int, loss: str = AUTO) -> dict[str, Any] | None:
        return self.tries.get(f"{name}.{rung}" if loss == AUTO else f"{name}.{rung}.{loss}")

    def cost(self, name: str) -> float:
        """The share of the whole network that a candidate needs: of its time where that is limited, else the geometric
        mean of MACs and parameters.
        """
        found = self.record(name, 0) or {}
        if found.get("latency_share") is not None:
            return float(found["latency_share"])
        return float((found["macs_ratio"] * found["params_ratio"]) ** 0.5)

    def noise(self, best: str, other: str, rung: int) -> float:
        """The standard error of the difference of two candidates' scores, paired by example."""
        return self.noise_of(self.record(best, rung), self.record(other, rung))

    def noise_of(self, best: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> float:
        assert best is not None
        assert other is not None
        task = self.bench.inputs.task()
        span = paired_interval(task, self._answers(best), self._answers(other))
        return 0.0 if span is None else (span[1] - span[0]) / (2 * Z)

    def seconds(self) -> dict[str, float]:
        """Seconds by try."""
        names = sorted(path.stem for path in self.tries.folder.glob("*.json"))
        found = {name: self.tries.get(name) or {} for name in names}
        return {name: one["seconds"] for name, one in found.items() if "seconds" in one}

    def _once(self, key: str, expected: float, act: Callable[[], dict[str, Any]]) -> Mark | str:
        stored = self.tries.get(key)
        if stored is None or "late" in stored:
            begun = time.monotonic()
            self.tell(key, int(self.tries.spent()), max(1, int(self.limit)), {})
            try:
                found = act()
            except PenjingError as error:
                found = {"cannot": str(error).partition(". Fix:")[0]}
            found |= {"seconds": time.monotonic() - begun, "expected": expected}
            stored = self.tries.put(key, found)
        if "cannot" in stored:
            return str(stored["cannot"])
        name, larger = headline(self.bench.inputs.task())
        score = stored["figures"].get(name)
        loss = stored["figures"]["loss"]
        if score is None or loss is None:
            return "its answers are no numbers"
        return Mark(score=score if larger else -score, loss=loss)

    def _room(self, key: str, expected: float, share: float) -> bool:
        stored = self.tries.get(key)
        if stored is not None:
            return "late" not in stored
        known = [self.tries.get(path.stem) or {} for path in self.tries.folder.glob("*.json")]
        spent = sum(one.get("seconds", 0.0) for one in known)
        foreseen = sum(one.get("expected", 0.0) for one in known if "seconds" in one)
        pace = (spent + RESTING) / (foreseen + RESTING)
        if spent + expected * pace <= share * self.limit:
            return True
        self.tries.put(key, {"late": True})
        return False

    def _expected(self, name: str, rung: int) -> float:
        """Seconds that a try might take."""
        one, examples = self.field[name], self.bench.inputs.recipe.steps.choose.examples
        asking = self.pace.counts["selection"] * self.pace.look
        if rung:
            batch = self.bench.inputs.recipe.steps.recover.batch_size
            step = batch * (self.pace.train * self.pace.share + self.pace.look)
            return self.steps[rung] * step + examples * self.pace.look + asking * self.pace.share
        seconds = REFITTING * examples * self.pace.look + 4 * asking * self.pace.share
        if not self.bench.scored(one):
            seconds += SCORING.get(one.criterion, 1.0) * examples * self.pace.train
        if one.blocks:
            seconds += REFITTING * examples * self.pace.look
            seconds += 0.0 if self.bench.walk else 10 * self.bench.deepest * examples * self.pace.look
        return seconds

    def _tried(self, name: str, rung: int) -> dict[str, Any]:
        if rung:
            return self._trained(name, rung, AUTO)
        cut = self.bench.cut(self.field[name])
        twin = self._twin(cut.plan)
        if twin is not None:
            return {"cannot": f"the same cut as {twin}"}
        self.bench.refit(cut)
        whole, sizes = self.bench.sizes(self.bench.whole), self.bench.sizes(cut.slim)
        write_state(cut.slim, self.tries.folder, name)
        found = {**sizes, **{f"{key}_ratio": sizes[key] / whole[key] for key in sizes}}
        reference = self.bench.tables.reference
        if cut.latency is not None and reference:
            found |= {"latency_ms": cut.latency, "latency_share": cut.latency / reference}
        return {**found, "plan": cut.plan.to_json(), **self._asked(cut.slim)}

    def _twin(self, plan: Plan) -> str | None:
        """The candidate whose cut removes the same."""
        edits = plan.edits
        known = ((name, (self.record(name, 0) or {}).get("plan")) for name in self.field)
        return next((name for name, text in known if text and Plan.from_json(text).edits == edits), None)

    def _trained(self, name: str, rung: int, loss: str) -> dict[str, Any]:
        stored = self.record(name, 0)
        assert stored is not None
        plan = Plan.from_json(stored["plan"])
        model = read_state(self.bench.blank(plan), state_file(self.tries.folder, name))
        asked = self.bench.inputs.recipe.steps.recover.loss if loss == AUTO else loss
        chosen = self.bench.train(model, plan, steps=self.steps[rung], loss=asked)
        return {"chosen": chosen, **self._asked(model)}

    def _asked(self, model: nn.Module) -> dict[str, Any]:
        return {key: value for key, value in asked(self.bench, model).items() if key != "targets"}

    def _answers(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """What `paired_interval` compares."""
        reference = self.tries.get("reference")
        assert reference is not None
        return {"predictions": _back(stored["predictions"]), "targets": _back(reference["targets"])}


def asked(bench: Bench, model: nn.Module) -> dict[str, Any]:
    """Figures, answers and truths on the selection split, as JSON holds them; a figure that is no number is None."""
    answer = bench.ask(model)
    scalars = {key: float(value) for key, value in answer.items() if isinstance(value, int | float)}
    figures = {key: value if math.isfinite(value) else None for key, value in scalars.items()}
    return {"figures": figures, **{key: _plain(answer[key]) for key in ("predictions", "targets")}}


def _plain(column: Any) -> list[Any]:
    """Class numbers; transcripts; tags of words as lists."""
    if isinstance(column, torch.Tensor):
        return column.tolist()
    return [answer if isinstance(answer, str) else list(answer) for answer in column]


def _back(stored: list[Any]) -> Any:
    """What `_plain` made a list of."""
    if all(isinstance(answer, int | float) for answer in stored):
        return torch.tensor(stored)
    return tuple(answer if isinstance(answer, str) else tuple(answer) for answer in stored)
