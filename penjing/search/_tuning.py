"""A study of training options: what is searched, where its trials are kept, and which of them wins."""

import hashlib
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penjing.core import RunError, UsageError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.storages.journal._file import BaseJournalFileLock
    from optuna.trial import FrozenTrial

Options = Mapping[str, Any]
MISSING = "The step tune needs Optuna. Fix: pip install 'penjing[search]', or leave steps.tune out"
LOCK_SECONDS = 10  # after which a lock that a killed worker left is taken away
STATES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "lost", "RUNNING": "running"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers from `low` to `high`, drawn by their logarithm where `low` is above 0."""

    low: float
    high: float

    def around(self, value: float) -> "Range":
        """This range, wide enough for `value`."""
        return Range(low=min(self.low, value), high=max(self.high, value))


Space = Mapping[str, Range | tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What a study looks for.

    `own` are the values of the recipe, the first trial, which is never stopped early; every range holds its own value.
    `trials` counts finished and stopped ones (0: no bound), `seconds` are theirs together, over all workers (None: no
    bound); a trial under way is let finish. Every trial draws from (seed, its number) and what was known when it began.
    """

    space: Space
    own: Options
    trials: int = 0
    seconds: float | None = None
    larger: bool = True
    stop_early: bool = True
    seed: int = 0

    def sampler(self, number: int) -> "BaseSampler":
        """Tree-structured Parzen estimators (Bergstra et al., NeurIPS 2011) for one trial.

        Running trials count as poor ones, so that workers side by side look in different places (the constant liar;
        Ginsbourger et al., "Kriging is well-suited to parallelize optimization", 2010).
        """
        from optuna.samplers import TPESampler

        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{number}".encode()).digest()[:4], "big")
        startup = max(3, min(10, self.trials // 3)) if self.trials else 10
        return TPESampler(seed=seed, constant_liar=True, multivariate=False, n_startup_trials=startup)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One trial: `state` is finished, stopped early, lost (its worker died or gave it up) or running.

    `value` is the metric on the selection split (of a stopped trial its last), `loss` breaks ties; `seconds` are None
    where they are not known; `own` marks the recipe's own values; `retry_of` is the lost trial that this one repeats.
    """

    number: int
    params: Options
    state: str
    value: float | None = None
    loss: float | None = None
    seconds: float | None = None
    why: str = ""
    worker: str = ""
    own: bool = False
    retry_of: int | None = None

    def order(self, *, larger: bool) -> tuple[float, float]:
        """Larger is better; of equal metrics the smaller loss."""
        value = math.nan if self.value is None else self.value * (1 if larger else -1)
        loss = math.inf if self.loss is None or math.isnan(self.loss) else self.loss
        return (-math.inf if math.isnan(value) else value, -loss)


def check_optuna() -> None:
    """Raises UsageError where Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UsageError(MISSING) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna says nothing inside: its news are told by others, and what it calls experimental is known."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def open_study(where: str | Path, name: str, tuning: Tuning) -> "Study":
    """The study `name` in a journal file (a path) or a database (a URL), made where it is not there yet.

    A journal file suits several processes and NFS; a URL is what SQLAlchemy understands. Raises UsageError for a
    storage that cannot be opened and where Optuna is not installed, RunError for a journal that is damaged.
    """
    check_optuna()
    from optuna import create_study
    from optuna.pruners import NopPruner

    with quiet(), _opened(where):
        return create_study(
            storage=_storage(where),
            study_name=name,
            direction="maximize" if tuning.larger else "minimize",
            pruner=_halving() if tuning.stop_early else NopPruner(),
            load_if_exists=True,
        )


def check_storage(url: str) -> None:
    """Raises UsageError for a database that cannot be opened; its tables are made where they are not there yet."""
    check_optuna()
    from optuna.storages import get_storage

    with quiet(), _opened(url):
        get_storage(url)


@contextmanager
def _opened(where: str | Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        told = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if isinstance(where, Path):
            raise RunError(
                f"{where} cannot be read ({told}): it is torn or altered. Fix: delete it and resume the run; its "
                "trials are then made anew"
            ) from error
        raise UsageError(
            f"steps.tune.storage: the study cannot be opened at {_shown(where)} ({told}). Fix: give a URL such as "
            "sqlite:////folder/study.db or postgresql://HOST/NAME, or null for a file in the run folder"
        ) from error


def tried(study: "Study") -> tuple[Tried, ...]:
    """Every trial that has begun, in order."""
    found = study.get_trials(deepcopy=False)
    return tuple(_tried(trial) for trial in found if trial.state.name in STATES)


def choose(trials: Sequence[Tried], *, larger: bool) -> tuple[Tried | None, str]:
    """The trial to follow and why; None where the recipe's own values were never tried to the end.

    Another trial wins only where it is truly better than the recipe's own values on the same split.
    """
    finished = [trial for trial in trials if trial.state == "finished"]
    own = next((trial for trial in finished if trial.own), None)
    if own is None:
        return None, "the recipe's own values were not tried to the end, so nothing can be said to be better"
    best = max(finished, key=lambda trial: trial.order(larger=larger))
    if best.order(larger=larger) <= own.order(larger=larger):
        return own, f"none of {len(finished)} finished trials was better than the recipe's own values"
    found = f"{best.value:.4g} after {own.value:.4g} with the recipe's own values"
    if best.value == own.value:
        found += f", at a loss of {best.loss:.4g} after {own.loss:.4g}"
    return best, f"the best of {len(finished)} finished trials: {found}"


def _tried(trial: "FrozenTrial") -> Tried:
    told, state = trial.user_attrs, STATES[trial.state.name]
    value = trial.value if trial.values else None
    if value is None and trial.intermediate_values:
        value = trial.intermediate_values[max(trial.intermediate_values)]
    return Tried(
        number=trial.number,
        params=dict(trial.params),
        state=state,
        value=value,
        loss=told.get("loss"),
        seconds=told.get("seconds"),
        why=told.get("why", "") if state != "finished" else "",
        worker=told.get("worker", ""),
        own=bool(told.get("own")),
        retry_of=told.get("retry_of"),
    )


def _halving() -> "BasePruner":
    """Successive halving among the trials that were not lost: a lost one's values come again in its next try."""
    from optuna.pruners import SuccessiveHalvingPruner

    class AmongKept(SuccessiveHalvingPruner):
        def prune(self, study: Any, trial: Any) -> bool:
            kept: Any = _Kept(study)
            return super().prune(kept, trial)

    return AmongKept(min_resource=1, reduction_factor=2)


class _Kept:
    """A study without its lost trials."""

    def __init__(self, study: "Study") -> None:
        self.study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self.study, name)

    def get_trials(self, deepcopy: bool = True) -> "list[FrozenTrial]":
        return [trial for trial in self.study.get_trials(deepcopy=deepcopy) if trial.state.name != "FAIL"]


def _storage(where: str | Path) -> "BaseStorage | str":
    if isinstance(where, str) and "://" in where:
        return where
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = Path(where)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_mending_lock(path)))


def _mending_lock(path: Path) -> "BaseJournalFileLock":
    """The journal's lock, whose holder first cuts off the torn line that a writer without power or space left."""
    from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

    class Mending(JournalFileOpenLock if sys.platform == "win32" else JournalFileSymlinkLock):
        def acquire(self) -> bool:
            held = super().acquire()
            try:
                _mend(path)
            except BaseException:
                self.release()
                raise
            return held

    return Mending(str(path), grace_period=LOCK_SECONDS)


def _mend(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)


def _shown(where: str | Path) -> str:
    """A place without the password in it."""
    scheme, mark, rest = str(where).partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else str(where)
