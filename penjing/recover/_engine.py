"""The training engine: epochs, selection, best epoch, checkpoints."""

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core import DataError, TrainingError, UsageError
from penjing.recover._bn import least_momentum
from penjing.recover._counting import examples, terms
from penjing.recover._ema import Average
from penjing.recover._epoch import not_finite, train_epoch
from penjing.recover._evaluate import Look, look, score, within_noise
from penjing.recover._mixup import mixed
from penjing.recover._modules import channels_last, device_of, kept_modes, tensors_of, write_tensors
from penjing.recover._optim import Group, build_optimizer, param_groups, pull, set_rate
from penjing.recover._protocols import Batch, Data, Progress, SequenceTask, Task
from penjing.recover._state import TrainState, check_state, fill_optimizer, optimizer_tensors
from penjing.recover._together import joint_norms, rank, shares, size_of, spread
from penjing.recover._training import Training, least_batch, narrows
from penjing.structure import surroundings_off

Checkpoint = Callable[[TrainState], None]
REPORT_EVERY = 0.1  # seconds
HELPER = "helper/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A trained model (the one that was given, in its best epoch) and how it went.

    `history` has one mapping per epoch: epoch, loss (mean training loss), lr (at the epoch's end), seconds,
    selection_loss and a selection_NAME for each scalar metric of the task. `start` has the selection figures
    before training, `selection` those of the model as returned; `best_epoch` 0 means that the start was kept, as
    no epoch was better. `notes` are what people should know of it, `chosen` what of a distillation was left open.
    """

    model: nn.Module
    history: tuple[Mapping[str, float], ...]
    best_epoch: int
    seconds: float
    start: Mapping[str, float] = field(default_factory=dict)
    selection: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the engine trains.

    `loss(batch, step, total)` runs the model, with mixup on `Mixed` batches; `groups` is called once the memory
    layout is set; `mode` sets training mode; `along(batches, epoch)` gives the batches of that epoch's views with
    what goes along with them; `settings` are the options a resumed run must share; `extra` goes into the state;
    `doubt` keeps the start only where it is better than every epoch by more than the noise of the selection split;
    `beside` are other models that run (a teacher); `helpers` learn along and are thrown away; `given` are figures for
    `Fit.start`; `seconds` were spent before.
    """

    stage: str
    model: nn.Module
    task: Task
    data: Data
    training: Training
    groups: Callable[[], tuple[Group, ...]]
    loss: Callable[[Batch, int, int], Tensor]
    mode: Callable[[], object]
    along: Callable[[Iterable[Batch], int], Iterable[Batch]] = lambda batches, epoch: batches
    settings: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    doubt: bool = False
    beside: tuple[nn.Module, ...] = ()
    helpers: nn.Module = field(default_factory=nn.ModuleList)
    given: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def run(
    job: Job,
    *,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
) -> Fit:
    """Train `job.model` in place and leave it in its best epoch on the selection split.

    On any error or interrupt the model comes out as it was at the end of the last whole epoch.
    """
    models = (job.model, *job.beside)
    training = job.training
    with (
        surroundings_off(),
        torch.enable_grad(),
        kept_modes(*models),
        least_momentum(job.model, training.bn_momentum),
        channels_last(*models, on=training.channels_last) as memory_format,
        joint_norms(job.model),
    ):
        spread(job.model, job.helpers)
        loop = _Loop(job, progress, memory_format)
        try:
            loop.begin(resume)
            while not loop.over():
                loop.advance()
                if checkpoint is not None:
                    checkpoint(loop.state())
        except BaseException:
            write_tensors(job.model, loop.good)
            raise
        write_tensors(job.model, loop.best)
        return loop.fit()


def run_blindly(job: Job, *, progress: Progress | None = None) -> None:
    """One epoch of `job`, its schedule run to the end, without a look at the selection split; the weights stay as they
    are after the last step, or at an error.
    """
    training = replace(job.training, epochs=1)
    with (
        kept_modes(job.model, *job.beside),
        least_momentum(job.model, training.bn_momentum),
        channels_last(job.model, *job.beside, on=training.channels_last) as memory_format,
    ):
        _Loop(replace(job, training=training), progress, memory_format)._train()


def steps_per_epoch(job: Job) -> int:
    """Batches that one epoch trains on: whole ones, and a last one that is not too small."""
    count, size = job.data.n("train"), job.training.batch_size
    if count < 2:
        raise DataError(f"Training needs at least 2 examples; the training split has {count}.")
    return count // size + (count % size >= least_batch(count, size))


class _Loop:
    """The engine's working state; `TrainState` is its frozen image."""

    def __init__(
        self, job: Job, progress: Progress | None, memory_format: torch.memory_format | None
    ) -> None:
        self.job, self.format = job, memory_format
        self.settings = {**job.training.to_json(), **job.settings}
        self.good: Mapping[str, Tensor] = _copy(tensors_of(job.model))
        learning = job.groups()
        if not learning:
            raise UsageError(
                f"There is nothing to train in {job.stage}: every parameter of {type(job.model).__name__} has "
                "requires_grad=False. Call model.requires_grad_(True), or on the parameters that shall learn."
            )
        self.groups = (*learning, *_helper_groups(job))
        self.optimizer = build_optimizer(self.groups, job.training)
        self.names: dict[Tensor, str] = {
            p: n for g in self.groups for n, p in zip(g.names, g.parameters, strict=True)
        }
        self.factor = job.training.multiplier()
        self.per_epoch = steps_per_epoch(job)
        self.total = self.per_epoch * job.training.epochs
        self.report = _Reporter(job.stage, self.total, progress)
        self.average: Average | None = None
        self.epoch = self.step = self.best_epoch = 0
        self.best: Mapping[str, Tensor] = self.good
        self.start_right: Tensor | None = None
        self.history: list[Mapping[str, float]] = []
        self.seconds = job.seconds

    def begin(self, resume: TrainState | None) -> None:
        if resume is not None:
            self._load(resume)
        elif self.job.training.ema:
            self.average = Average(self.good, self.job.training.ema)
        if resume is None:
            begun = self._look()
            self.start, self.score = {**self.job.given, **begun.figures}, self._score(begun.figures)
            self.start_right = begun.right if self.job.doubt else None

    def _load(self, state: TrainState) -> None:
        check_state(state, self.job.stage, self.good, self.settings)
        write_tensors(self.job.model, state.model)
        write_tensors(self.job.helpers, {name.removeprefix(HELPER): t for name, t in state.extra.items()})
        if state.ema is not None:
            self.average = Average(state.ema, self.job.training.ema)
        fill_optimizer(self.optimizer, state.optimizer, self.names)
        self.epoch, self.step, self.seconds = state.epoch, state.step, state.seconds
        self.best, self.best_epoch, self.score = state.best, state.best_epoch, state.score
        self.history, self.start, self.start_right = list(state.history), state.start, state.start_right
        self.good = _copy(state.ema if state.ema is not None else state.model)

    def over(self) -> bool:
        patience = self.job.training.early_stopping
        stale = patience is not None and self.epoch - self.best_epoch >= patience
        return stale or self.epoch >= self.job.training.epochs

    def advance(self) -> None:
        """One epoch, its evaluation and its place in the history."""
        begun, training = time.perf_counter(), self.job.training
        loss = self._train()
        spread(self.job.model, self.job.helpers)
        found = self._look()
        figures = found.figures
        if not math.isfinite(figures["loss"]):
            lr, last = self.optimizer.param_groups[0]["lr"], self.per_epoch - 1
            stage = f"{self.job.stage} (selection)"
            raise TrainingError(not_finite(stage, self.epoch + 1, last, self.step - 1, figures["loss"], lr))
        self.epoch += 1
        self.good = _copy(self.average.tensors if self.average else tensors_of(self.job.model))
        reached = self._score(figures)
        if reached > self.score or (not self.best_epoch and within_noise(self.start_right, found.right)):
            self.best, self.best_epoch, self.score = self.good, self.epoch, reached
        took = time.perf_counter() - begun
        self.seconds += took
        chosen = {f"selection_{name}": value for name, value in figures.items()}
        rate = training.lr * self.factor(self.step - 1, self.total)
        self.history.append({"epoch": self.epoch, "loss": loss, "lr": rate, "seconds": took, **chosen})
        self.report.epoch(self.step, self.seconds, self.history[-1])

    def _train(self) -> float:
        job, training, summed, first = self.job, self.job.training, 0.0, self.step
        with _seeded(training.seed, job.stage, self.epoch, device_of(job.model)):
            job.mode()
            losses = train_epoch(
                job.model,
                self._batches(),
                lambda batch: job.loss(batch, self.step, self.total),
                self.optimizer,
                set_step=lambda step: set_rate(self.optimizer, self.groups, self.factor(step, self.total)),
                first_step=self.step,
                clip=training.clip,
                bf16=narrows(training.bf16, device_of(job.model)),
                weight=self._weight,
                memory_format=self.format,
                stage=job.stage,
                epoch=self.epoch + 1,
            )
            begun = time.perf_counter()
            for figure in losses:
                self._after_step()
                summed += figure
                rate = training.lr * self.factor(self.step - 1, self.total)
                self.report.step(self.step, self.seconds + time.perf_counter() - begun, figure, rate)
        return summed / max(1, self.step - first)

    def _after_step(self) -> None:
        pull(self.groups, self.factor(self.step, self.total))
        self.step += 1
        if self.average:
            self.average.update(tensors_of(self.job.model), self.step)

    def _batches(self) -> Iterable[Batch]:
        training, data = self.job.training, self.job.data
        least = least_batch(data.n("train"), training.batch_size)
        epoch = self.epoch % training.views if training.views else self.epoch
        batches: Iterable[Batch] = data.batches(
            "train",
            training.batch_size,
            augment=training.augment,
            seed=training.seed,
            epoch=epoch,
            shuffle=True,
        )
        kept = (batch for batch in batches if examples(self.job.task.targets(batch)) >= least)
        return shares(self.job.along(mixed(kept, training, epoch) if training.mixup else kept, epoch))

    def _weight(self, batch: Batch) -> float:
        """How many terms a share's mean loss has."""
        task = self.job.task
        return terms(task, batch) if isinstance(task, SequenceTask) else size_of(batch)

    def _score(self, figures: Mapping[str, float]) -> tuple[float, ...]:
        return score(figures, self.job.task, self.job.training.monitor)

    def _look(self) -> Look:
        """What would be kept on the selection split: the average where there is one."""
        job = self.job
        if self.average is None:
            return look(job.model, job.task, job.data, job.training)
        own = _copy(tensors_of(job.model))
        write_tensors(job.model, self.average.tensors)
        try:
            return look(job.model, job.task, job.data, job.training)
        finally:
            write_tensors(job.model, own)

    def state(self) -> TrainState:
        model = self.good if self.average is None else _copy(tensors_of(self.job.model))
        return TrainState(
            stage=self.job.stage,
            epoch=self.epoch,
            step=self.step,
            model=model,
            optimizer=optimizer_tensors(self.optimizer, self.names),
            ema=self.good if self.average is not None else None,
            best=self.best,
            best_epoch=self.best_epoch,
            score=self.score,
            extra={**self.job.extra, **_helper_tensors(self.job.helpers)},
            start=self.start,
            start_right=self.start_right,
            history=tuple(self.history),
            seconds=self.seconds,
            settings=self.settings,
        )

    def fit(self) -> Fit:
        row = self.history[self.best_epoch - 1] if self.best_epoch else {}
        chosen = {name[10:]: value for name, value in row.items() if name.startswith("selection_")}
        return Fit(
            selection=chosen or self.start,
            model=self.job.model,
            history=tuple(self.history),
            best_epoch=self.best_epoch,
            seconds=self.seconds,
            start=self.start,
        )


class _Reporter:
    """Calls `progress` at most ten times a second, and at each epoch's end."""

    def __init__(self, stage: str, total: int, progress: Progress | None) -> None:
        self.stage, self.total, self.progress = stage, total, progress
        self.last = 0.0

    def step(self, done: int, seconds: float, loss: float, rate: float) -> None:
        now = time.perf_counter()
        if self.progress is not None and now - self.last >= REPORT_EVERY:
            self.last = now
            self.progress(self.stage, done, self.total, {"loss": loss, "lr": rate, "seconds": seconds})

    def epoch(self, done: int, seconds: float, row: Mapping[str, float]) -> None:
        if self.progress is not None:
            self.progress(self.stage, done, self.total, {**row, "seconds": seconds})


@contextmanager
def _seeded(seed: int, stage: str, epoch: int, device: torch.device) -> Iterator[None]:
    """Torch's, NumPy's and Python's generators seeded from (seed, stage, epoch) inside, as they were outside.

    Networks draw from all three: some mask spectrograms in NumPy.
    """
    devices = [device] if device.type == "cuda" else []
    apart = f"/{rank()}" if rank() else ""  # of several processes each drops other units
    mixed = int.from_bytes(hashlib.sha256(f"{seed}/{stage}/{epoch}{apart}".encode()).digest()[:8], "big") >> 1
    others = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(mixed)
        np.random.seed(mixed % 2**32)
        random.seed(mixed)
        try:
            yield
        finally:
            np.random.set_state(others[0])
            random.setstate(others[1])


def _helper_groups(job: Job) -> tuple[Group, ...]:
    """The helpers' parameters, at the same rate and decay."""
    groups = param_groups(job.helpers, lr=job.training.lr, weight_decay=job.training.weight_decay)
    return tuple(replace(group, names=tuple(HELPER + name for name in group.names)) for group in groups)


def _helper_tensors(helpers: nn.Module) -> dict[str, Tensor]:
    return {HELPER + name: t for name, t in _copy(tensors_of(helpers)).items()}


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items()}
