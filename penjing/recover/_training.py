"""The options that every kind of training shares."""

import difflib
import math
from dataclasses import asdict, dataclass, fields, replace
from numbers import Real
from typing import Any, Literal

import torch

from penjing.core import UsageError
from penjing.recover._schedules import Schedule, constant, warmup_cosine, warmup_linear

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How to train; every step has its own defaults, and every field can be given to it as a keyword.

    epochs: passes over the training split. batch_size: examples per step; a last batch of less than half is left out.
    lr: peak learning rate. optimizer: "adamw" (decoupled decay) or "sgd" (with `momentum`, Nesterov).
    schedule: "cosine", "linear" or "constant", after a rise over the share `warmup` of the steps, down to the
    share `floor` of the peak. weight_decay: lambda of the regulariser; never on norm scales and biases.
    ema: decay of an exponential moving average of the weights, which is then what is evaluated and kept; 0 is
    off. clip: largest gradient norm, None is off. augment: a policy name of the data. early_stopping: epochs
    without improvement on the selection split before stopping, None is off. monitor: the metric that chooses
    the best epoch, None is the task's headline (accuracy where it has none); larger is better, but of loss, nll,
    wer and cer smaller; ties go to the smaller loss. channels_last: the memory layout of weights and pictures
    while training. bf16: autocast forward passes to bfloat16; "auto" where the device is a GPU that has it.
    bn_momentum: the least momentum of batch-norm statistics while training; some networks come with 0.01,
    which a short training never catches up with; 0 leaves them alone. views: how many epochs' order and augmentation
    are served in turn, over and over (None: every epoch has its own). mixup: alpha of the distribution that shares are
    drawn from in which examples of a batch are laid over each other; 0 is off. seed: with the epoch it determines
    order, augmentation, mixup and dropout.
    """

    epochs: int
    batch_size: int = 64
    lr: float = 1e-3
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    ema: float = 0.0
    clip: float | None = None
    augment: bool | str = False
    early_stopping: int | None = None
    monitor: str | None = None
    eval_batch_size: int = 256
    channels_last: bool = True
    bf16: bool | Literal["auto"] = "auto"
    bn_momentum: float = 0.1
    views: int | None = None
    mixup: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 2)
        _at_least("eval_batch_size", self.eval_batch_size, 1)
        _at_least("early_stopping", self.early_stopping, 1)
        _at_least("views", self.views, 1)
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        for name in ("lr", "clip"):
            inside(name, getattr(self, name), 0, open_low=True)
        for name in ("momentum", "warmup", "floor", "ema", "bn_momentum"):
            inside(name, getattr(self, name), 0, 1)
        inside("weight_decay", self.weight_decay, 0)
        inside("mixup", self.mixup, 0, 100)

    def multiplier(self) -> Schedule:
        """The learning-rate factor as a function of (step, total)."""
        if self.schedule == "constant":
            return constant
        shape = warmup_cosine if self.schedule == "cosine" else warmup_linear
        return lambda step, total: shape(step, total, warmup=self.warmup, floor=self.floor)

    def to_json(self) -> dict[str, Any]:
        """The options as plain values."""
        return asdict(self)


def least_batch(count: int, size: int) -> int:
    """The fewest examples worth a step: half a batch. Fewer would leave batch norms with wild statistics."""
    return max(2, (min(count, size) + 1) // 2)


def training_with(defaults: Training, options: dict[str, Any]) -> Training:
    """`defaults` with keyword options laid over; an unknown name raises UsageError with the nearest known."""
    known = [field.name for field in fields(Training)]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            raise UsageError(
                f"Unknown training option {name!r}; did you mean {near!r}? Known: {', '.join(known)}."
            )
    return replace(defaults, **options)


def _at_least(name: str, value: int | None, low: int) -> None:
    if value is not None and (not isinstance(value, int) or value < low):
        raise UsageError(f"{name} must be a whole number of at least {low}, not {value!r}.")


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"{name} must be one of {', '.join(known)}, not {value!r}.")


def inside(
    name: str, value: float | None, low: float, high: float = math.inf, *, open_low: bool = False
) -> None:
    """Raises UsageError unless `value` is None or a finite number within the bounds."""
    if value is None:
        return
    number = isinstance(value, Real) and math.isfinite(value)
    if not number or not (low <= value <= high) or (open_low and value == low):
        above = f"above {low}" if open_low else f"at least {low}"
        bound = f"in [{low}, {high}]" if math.isfinite(high) else f"{above} and finite"
        raise UsageError(f"{name} must be {bound}, not {value!r}.")


def narrows(bf16: bool | str, device: torch.device) -> bool:
    """Whether forward passes on `device` run in bfloat16."""
    if bf16 != "auto":
        return bool(bf16)
    return device.type == "cuda" and torch.cuda.is_bf16_supported()
