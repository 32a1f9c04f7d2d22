"""Workers of a study: any number of processes that try options side by side, and take over what a dead one left.

Optuna knows heartbeats in databases only, so they are ours: a worker's running trial carries a number that rises every
few seconds. A trial whose number stands still for `GRACE` seconds, by the clock of whoever watches, is lost, and so is
at once one whose process is gone from this machine. It is marked and queued again with the same options; what was
finished stays.
"""

import math
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.core import TrainingError
from penjing.search._tuning import Options, Range, Tried, Tuning, quiet, tried

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

Report = Callable[[int, float], None]
Objective = Callable[[Options, Report], tuple[float, float]]
Hear = Callable[[tuple[Tried, ...]], None]
BEAT, GRACE, POLL = 5.0, 60.0, 0.2  # seconds
GONE = "its worker is gone"
TRIES = 3  # of the same options, before they are taken to kill their workers


class _Stopped(Exception):
    """The trial is stopped early."""


class _Lost(Exception):
    """Others took this trial for lost and have queued it again."""


def work(
    study: "Study",
    tuning: Tuning,
    objective: Objective,
    *,
    hear: Hear = lambda _: None,
    beat: float = BEAT,
    grace: float = GRACE,
) -> None:
    """Tries options until the study's budget is spent and nobody tries any more.

    `objective(options, report)` trains and returns (metric, loss) on the selection split; it calls report(epoch,
    metric) after every epoch, which raises where the trial is to stop, and that has to come through. A TrainingError
    is an answer, the worst one; any other error gives the trial back and is raised. `hear` gets all trials whenever
    one has ended here.
    """
    watch = _Watch(study, grace)
    with quiet():
        while True:
            watch.sweep()
            left = _left(study, tuning)
            if left == "none":
                return
            if left == "others":
                time.sleep(POLL)
                continue
            trial = study.ask()
            if _crowded(study, tuning, trial.number):
                _give_up(study, trial.number, "others spent the budget first")
                continue
            _try(study, trial, tuning, objective, beat)
            hear(tried(study))


def begin(study: "Study", tuning: Tuning) -> None:
    """Queues the recipe's own values where they are neither tried, under way nor given up."""
    own = [trial for trial in tried(study) if trial.own]
    done = any(trial.state != "lost" for trial in own) or len(own) >= TRIES
    if not done and not _waiting(study):
        with quiet():
            study.enqueue_trial(dict(tuning.own), user_attrs={"own": True})


def _left(study: "Study", tuning: Tuning) -> str:
    """What is left to do: "some" for this worker, "others" where only running trials of others are, or "none"."""
    begin(study, tuning)
    trials = tried(study)
    ended = [trial for trial in trials if trial.state in ("finished", "stopped early")]
    running = [trial for trial in trials if trial.state == "running"]
    own = [trial for trial in trials if trial.own]
    known = any(trial.state != "lost" for trial in own) or len(own) >= TRIES
    enough = bool(tuning.trials) and len(ended) >= tuning.trials
    late = tuning.seconds is not None and sum(trial.seconds or 0.0 for trial in ended) >= tuning.seconds
    hopeless = sum(trial.why == GONE for trial in trials) >= 2 * max(TRIES, tuning.trials)
    if enough or (late and known) or hopeless:
        return "others" if running else "none"
    full = bool(tuning.trials) and len(ended) + len(running) >= tuning.trials
    return "others" if full and running else "some"


def _crowded(study: "Study", tuning: Tuning, number: int) -> bool:
    """Whether trials before this one fill the budget: two workers may have asked at once."""
    before = [trial for trial in tried(study) if trial.number < number and trial.state != "lost"]
    return bool(tuning.trials) and len(before) >= tuning.trials


def _try(study: "Study", trial: "Trial", tuning: Tuning, objective: Objective, beat: float) -> None:
    from optuna.trial import TrialState

    own, begun = bool(trial.user_attrs.get("own")), time.perf_counter()
    for key, value in _here().items():
        trial.set_user_attr(key, value)
    study.sampler = tuning.sampler(_turn(study, trial))
    options = _drawn(trial, tuning)
    trial.set_user_attr("options", options)
    state, value, loss, why = TrialState.COMPLETE, None, None, ""
    try:
        with _beating(trial, beat) as lost:
            value, loss = objective(options, _reporter(trial, lost, never=own))
        if math.isnan(value):
            state, why = TrialState.PRUNED, "the metric is no number"
    except _Stopped:
        state, why = TrialState.PRUNED, "others were better after as many epochs"
    except _Lost:
        return
    except TrainingError as error:
        state, why = TrialState.PRUNED, str(error).partition(". ")[0]
    except BaseException as error:
        _give_up(study, trial.number, f"interrupted: {type(error).__name__}", again=True)
        raise
    _end(study, trial, state, value, why, seconds=time.perf_counter() - begun, loss=loss)


def _end(
    study: "Study",
    trial: "Trial",
    state: Any,
    value: float | None,
    why: str,
    *,
    seconds: float,
    loss: float | None,
) -> None:
    """Tells the study; one that was taken for lost in the meantime keeps what its next try says."""
    with suppress(RuntimeError, ValueError):
        trial.set_user_attr("seconds", round(seconds, 3))
        if why:
            trial.set_user_attr("why", why)
        if loss is not None:
            trial.set_user_attr("loss", float(loss))
        study.tell(trial, value if state.name == "COMPLETE" else None, state=state)


def _turn(study: "Study", trial: "Trial") -> int:
    """The number that the trial would have if none had been lost: what it draws then does not depend on kills."""
    first = int(trial.user_attrs.get("retry_of", trial.number))
    return first - sum("retry_of" in one.user_attrs for one in study.get_trials(deepcopy=False)[:first])


def _drawn(trial: "Trial", tuning: Tuning) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, among in tuning.space.items():
        if isinstance(among, Range):
            drawn[name] = trial.suggest_float(name, among.low, among.high, log=among.low > 0)
        else:
            drawn[name] = trial.suggest_categorical(name, list(among))
    return drawn


def _reporter(trial: "Trial", lost: threading.Event, *, never: bool) -> Report:
    def report(epoch: int, value: float) -> None:
        if lost.is_set():
            raise _Lost
        trial.report(value, epoch)
        if trial.should_prune() and not never:
            raise _Stopped

    return report


@contextmanager
def _beating(trial: "Trial", seconds: float) -> Iterator[threading.Event]:
    """A sign of life every few seconds; the event is set once the trial has been taken for lost."""
    over, lost = threading.Event(), threading.Event()

    def beat() -> None:
        count = 0
        while not over.wait(seconds):
            count += 1
            try:
                trial.set_user_attr("beat", count)
            except (RuntimeError, OSError):  # finished by others; or no storage for a moment
                if _finished(trial):
                    lost.set()
                    return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        over.set()
        thread.join()


def _finished(trial: "Trial") -> bool:
    try:
        return trial.storage.get_trial(trial._trial_id).state.is_finished()
    except (RuntimeError, OSError):
        return False


class _Watch:
    """Finds trials whose worker is gone; time is this process's own, so that no two clocks are compared."""

    def __init__(self, study: "Study", grace: float) -> None:
        self.study, self.grace = study, grace
        self.seen: dict[int, tuple[int, float]] = {}

    def sweep(self) -> None:
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._gone(trial):
                _give_up(self.study, trial.number, GONE, again=True)

    def _gone(self, trial: "FrozenTrial") -> bool:
        told, now = trial.user_attrs, time.monotonic()
        if told.get("machine") == _machine() and not _alive(int(told["process"])):
            return True
        beat = int(told.get("beat", 0))
        last, since = self.seen.get(trial.number, (-1, now))
        if beat != last:
            self.seen[trial.number] = (beat, now)
            return False
        return now - since > self.grace


def _give_up(study: "Study", number: int, why: str, *, again: bool = False) -> None:
    """Marks a running trial as lost and, where asked, queues its options; of several workers only one gets to do it."""
    from optuna.trial import TrialState

    trial = study.get_trials(deepcopy=False)[number]
    with suppress(RuntimeError, ValueError):  # another worker, or the trial itself, was faster
        study._storage.set_trial_user_attr(trial._trial_id, "why", why)
        study.tell(number, state=TrialState.FAIL)
        if again:
            _again(study, trial, why)


def _again(study: "Study", trial: "FrozenTrial", why: str) -> None:
    told = trial.user_attrs
    times = int(told.get("times", 1)) + (why == GONE)
    if times > TRIES:
        return
    options = told.get("options") or trial.system_attrs.get("fixed_params", {})
    kept = {"own": True} if told.get("own") else {}
    study.enqueue_trial(
        dict(options), user_attrs={**kept, "times": times, "retry_of": told.get("retry_of", trial.number)}
    )


def _waiting(study: "Study") -> bool:
    from optuna.trial import TrialState

    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _here() -> Mapping[str, Any]:
    return {"machine": _machine(), "process": os.getpid(), "worker": f"{platform.node()}/{os.getpid()}"}


def _machine() -> str:
    """This start of this machine, and within it the space in which process numbers mean the same."""
    parts = [platform.node()]
    for file in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            parts.append(os.readlink(file) if "/ns/" in file else Path(file).read_text().strip())
    return "/".join(parts)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
