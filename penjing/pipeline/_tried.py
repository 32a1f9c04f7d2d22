"""What was tried and why one was chosen: tried.json, and in words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penjing.pipeline._contest import AUTO, Contest
from penjing.search import Halved, Preferred, Standing
from penjing.tasks import headline

LATE = "no time was left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """The losses that the chosen cut was trained with; `standings` is empty where none was compared."""

    standings: tuple[Standing, ...] = ()
    preferred: Preferred | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Both contests, over."""

    contest: Contest
    halved: Halved
    losses: Losses

    def options(self) -> dict[str, dict[str, Any]]:
        """What was chosen, by step."""
        return {**self.contest.field[self.halved.chosen].options(), "recover": {"loss": self.loss}}

    @property
    def loss(self) -> str:
        taken = self.losses.preferred
        return self.contest.bench.inputs.recipe.steps.recover.loss if taken is None else taken.name

    def to_dict(self) -> dict[str, Any]:
        """The content of tried.json: equal runs, broken off or not, give the same."""
        contest = self.contest
        metric, larger = headline(contest.bench.inputs.task())
        reference = contest.tries.get("reference")
        assert reference is not None
        return {
            "schema_version": 1,
            "metric": metric,
            "larger_is_better": larger,
            "split": "selection",
            "examples": contest.pace.counts["selection"],
            "rungs": [{"rung": rung, "steps": steps} for rung, steps in enumerate(contest.steps)],
            "margin": contest.bench.inputs.recipe.margin,
            "reference": reference["figures"],
            "candidates": [self._candidate(one) for one in self.halved.standings],
            "losses": [self._loss(one) for one in self.losses.standings],
            "chosen": {"candidate": self.halved.chosen, "loss": self.loss, "options": self.options()},
            "why": list(self.why()),
        }

    def why(self) -> Iterator[str]:
        """Sentences, for people."""
        tried = [one for one in self.halved.standings if one.marks]
        among = f"of {len(tried)} tried" if len(tried) > 1 else "the only one that was tried"
        about = self.contest.field[self.halved.chosen].about
        yield f"{self.halved.chosen} ({about}) was chosen {among}: {self._because()}"
        if self.losses.preferred is not None:
            name = self.loss if self.loss != AUTO else self._auto()
            yield f"loss {name} was chosen of {len(self.losses.standings)}: {self._because_of_loss()}"

    def late(self) -> tuple[str, ...]:
        """What time did not allow."""
        found = [one.name for one in self.halved.standings if one.out.startswith(LATE) and not one.marks]
        walks = [one for one in self.contest.bench.found.values() if one.record["late"]]
        found += ["more adjustments"] if walks else []
        return (*found, *(f"loss {one.name}" for one in self.losses.standings if one.out.startswith(LATE)))

    def _because(self) -> str:
        taken, rung = self.halved.preferred, self.halved.rung
        own = self._figure(self.contest.record(taken.name, rung))
        when = f"after {self.contest.steps[rung]} steps of recovery" if rung else "without training"
        if taken.name == taken.best:
            return f"{own} {when}, the best"
        best = self._figure(self.contest.record(taken.best, rung))
        noise = 100 * self.contest.judge.tolerance(taken.best, taken.name, rung)
        return (
            f"{own} {when}; {taken.best} reached {best}, ahead by no more than is given away for it (one standard error"
            f"{' or the margin' if self.contest.margin is not None else ''}: {noise:.2f} points), and "
            f"{taken.name} {taken.why}"
        )

    def _because_of_loss(self) -> str:
        taken, rung = self.losses.preferred, len(self.contest.steps) - 1
        assert taken is not None
        own = self._figure(self.contest.record(self.halved.chosen, rung, taken.name))
        when = f"after {self.contest.steps[rung]} steps"
        if taken.name == taken.best:
            return f"{own} {when}, the best"
        best = self._figure(self.contest.record(self.halved.chosen, rung, taken.best))
        return f"{own} {when}; {taken.best} reached {best}, which could be noise, and the first is the rule's"

    def _auto(self) -> str:
        """What the rule's loss is."""
        found = self.contest.record(self.halved.chosen, len(self.contest.steps) - 1) or {}
        return str(found.get("chosen", {}).get("loss", AUTO))

    def _figure(self, stored: Mapping[str, Any] | None) -> str:
        assert stored is not None
        metric, _ = headline(self.contest.bench.inputs.task())
        return f"{metric} {stored['figures'][metric]:.2%}"

    def _candidate(self, one: Standing) -> dict[str, Any]:
        candidate, first = self.contest.field[one.name], self.contest.record(one.name, 0) or {}
        about = {"name": one.name, "about": candidate.about, "options": candidate.options()}
        sizes = ("macs", "params", "macs_ratio", "params_ratio", "latency_ms")
        about |= {key: first[key] for key in sizes if key in first}
        scores = [self._score(rung, self.contest.record(one.name, rung)) for rung in range(len(one.marks))]
        return {
            **about,
            "scores": scores,
            "chosen": one.name == self.halved.chosen,
            "dropped": one.out or None,
        }

    def _loss(self, one: Standing) -> dict[str, Any]:
        rung = len(self.contest.steps) - 1
        found = self.contest.record(self.halved.chosen, rung, one.name) if one.marks else None
        name = self._auto() if one.name == AUTO else one.name
        scores = [self._score(rung, found)] if found else []
        dropped = one.out.replace(f" {AUTO}", f" {self._auto()}") or None
        return {"name": name, "scores": scores, "chosen": one.name == self.loss, "dropped": dropped}

    def _score(self, rung: int, stored: Mapping[str, Any] | None) -> dict[str, Any]:
        assert stored is not None
        return {"rung": rung, "steps": self.contest.steps[rung], **stored["figures"]}
