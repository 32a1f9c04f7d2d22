"""Weights that become zero, gradually, and stay zero through training. It makes files smaller, not networks faster."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from penjing.core import UsageError
from penjing.criteria import (
    check_share,
    layout,
    odd_names,
    parse_pattern,
    pattern_masks,
    share_masks,
    weight_names,
    weight_scores,
)
from penjing.recover._distil import recover
from penjing.recover._engine import Checkpoint, Fit, least_batch
from penjing.recover._protocols import Data, Progress, Task
from penjing.recover._state import TrainState
from penjing.recover._training import inside

RAMP, HOLD = "sparsify-ramp", "sparsify"
TIMES = 100  # that the share rises within a ramp
_INNER = "recover"

Masks = Mapping[str, Tensor]


def cubic(step: int, steps: int, share: float, start: float = 0.0) -> float:
    """The share of zeros at a step: s_f + (s_i - s_f) (1 - step / steps)^3 (Zhu & Gupta, "To prune, or not to prune",
    ICLR workshop 2018, eq. 1).

    >>> [round(cubic(step, 4, 0.8), 4) for step in range(5)]
    [0.0, 0.4625, 0.7, 0.7875, 0.8]
    """
    left = 1 - min(1.0, step / max(1, steps))
    return share + (start - share) * left**3


@dataclass(frozen=True, slots=True)
class Sparsity:
    """What becomes zero: a `share` of the weights, or all but N of M (`pattern`), of `layers` (None: all that can).

    `method` is "magnitude" (compared within a layer) or "wanda" (within an output; needs calibration).
    """

    share: float = 0.0
    pattern: str | None = None
    method: str = "magnitude"
    layers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_share(self.share)
        if isinstance(self.layers, str):
            raise UsageError(
                f"layers={self.layers!r} must be a tuple of names or patterns: layers=({self.layers!r},)"
            )
        if self.pattern is not None and self.share:
            raise UsageError("give a share of zeros or an N:M pattern, not both")
        if self.pattern is not None:
            parse_pattern(self.pattern)


def sparse_masks(
    model: nn.Module, sparsity: Sparsity, calibration: Iterable[Any] | None = None
) -> dict[str, Tensor]:
    """By parameter name, true where a weight stays. Raises `UsageError` for layers and patterns that do not fit."""
    names = weight_names(model, sparsity.layers, sparsity.pattern)
    return _Ranking(model, sparsity, names, calibration).masks(sparsity.share)


@torch.no_grad()
def zero_out(model: nn.Module, masks: Masks) -> None:
    """Writes zeros where the masks are false."""
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameters[name].masked_fill_(~mask, 0)


def zero_masks(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """Masks of what is zero now."""
    parameters = dict(model.named_parameters())
    return {name: parameters[name].detach() != 0 for name in names}


@contextmanager
def held(model: nn.Module, masks: Masks) -> Iterator[None]:
    """Inside, weights that are masked are zero again after every step of any optimizer: for a loop of one's own."""
    zero_out(model, masks)
    hook = register_optimizer_step_post_hook(lambda *_: zero_out(model, masks))
    try:
        yield
    finally:
        hook.remove()
        zero_out(model, masks)


class _Ranking:
    """Masks by current magnitudes, and by input norms of the network that it started with."""

    def __init__(
        self, model: nn.Module, sparsity: Sparsity, names: Sequence[str], calibration: Iterable[Any] | None
    ) -> None:
        self._model, self._sparsity, self._names = model, sparsity, names
        scores = weight_scores(sparsity.method, model, names, calibration)
        now = weight_scores("magnitude", model, names)
        self._scale = {n: scores[n] / now[n].clamp_min(1e-30) for n in names}
        self._layouts = {n: layout(model, n) for n in names}

    def masks(self, share: float) -> dict[str, Tensor]:
        now = weight_scores("magnitude", self._model, self._names)
        scores = {n: v * self._scale[n] for n, v in now.items()}
        if self._sparsity.pattern is not None:
            return pattern_masks(scores, self._sparsity.pattern, self._layouts)
        return share_masks(scores, share, self._layouts if self._sparsity.method == "wanda" else None)


@contextmanager
def _ramped(ranking: _Ranking, model: nn.Module, names: Sequence[str], at: Callable[[int], float],
            step: int, every: int) -> Iterator[None]:  # fmt: skip
    """Inside, zeros rise with the optimizer's steps, from `step` on. What is zero at a step's begin stays so."""
    masks, count = {}, step

    def before(*_: Any) -> None:
        if not masks:
            masks.update(zero_masks(model, names))

    def after(*_: Any) -> None:
        nonlocal count
        count += 1
        zero_out(model, masks)
        if count % every == 0:
            masks.update(ranking.masks(at(count)))
            zero_out(model, masks)

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sparsify(
    model: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    data: Data,
    *,
    sparsity: Sparsity,
    ramp: float = 0.5,
    calibration: Iterable[Any] | None = None,
    bn_examples: int = 0,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
    epochs: int = 4,
    **options: Any,
) -> Fit:
    """Train `model`, in place, while weights become zero, and on with those zeros.

    Over the share `ramp` of the epochs (rounded down) the share of zeros rises by `cubic`; the rest is recovery
    (`recover`, whose options these are) with the zeros held, and only its epochs are chosen among. N:M patterns have no
    ramp; weights that they cannot be laid over are named in the result's `notes`, and told to `say`. A resumed run does
    as the whole one did. Zeros are no speed: measure, and compare sizes on disk.
    """
    inside("ramp", ramp, 0, 1)
    if epochs < 1:
        raise UsageError(f"epochs must be a whole number of at least 1, not {epochs!r}.")
    names = weight_names(model, sparsity.layers, sparsity.pattern)
    notes = _dense(model, sparsity)
    if options.get("say") is not None:
        for note in notes:
            options["say"](note)
    ranking = _Ranking(model, sparsity, names, calibration)
    rising = 0 if sparsity.pattern is not None else min(epochs - 1, int(ramp * epochs))
    train = _Training(model, teacher, task, data, progress, checkpoint, bn_examples, options)
    if rising and (resume is None or resume.stage == RAMP):
        steps = rising * _steps(data, int(options.get("batch_size", 64)))
        every, done = max(1, steps // TIMES), 0 if resume is None else resume.step
        with _ramped(ranking, model, names, lambda step: cubic(step, steps, sparsity.share), done, every):
            train.last(RAMP, rising, resume)
        resume = None
    masks = zero_masks(model, names) if resume is not None else ranking.masks(sparsity.share)
    if resume is not None:
        masks = {n: resume.model[n].to(m.device) != 0 for n, m in masks.items()}
    with held(model, masks):
        fit = train.best(HOLD, epochs - rising, resume)
    return replace(fit, notes=(*notes, *fit.notes))


def _dense(model: nn.Module, sparsity: Sparsity) -> tuple[str, ...]:
    """What a pattern leaves as it is, in words."""
    if sparsity.pattern is None:
        return ()
    able = weight_names(model, sparsity.layers)
    odd = odd_names(model, able, sparsity.pattern)
    if not odd:
        return ()
    parameters, of = dict(model.named_parameters()), int(sparsity.pattern.partition(":")[2])
    numbers, whole = (sum(parameters[n].numel() for n in names) for names in (odd, able))
    dims = [layout(model, n).inputs(parameters[n]) for n in odd]
    shown = ", ".join(f"{n} ({dim})" for n, dim in list(zip(odd, dims, strict=True))[:3])
    way = f"; units removed in steps of {of} (round_to) leave dims that it divides" if max(dims) > of else ""
    return (
        f"pattern {sparsity.pattern} leaves {len(odd)} of {len(able)} weights dense, {numbers / whole:.0%} of their "
        f"numbers: {of} does not divide their input dims, such as {shown}{way}",
    )


def _steps(data: Data, size: int) -> int:
    count = data.n("train")
    return count // size + (count % size >= least_batch(count, size))


@dataclass(frozen=True, slots=True)
class _Training:
    """`recover` under other names of its stage, so that a checkpoint says which part it is of."""

    model: nn.Module
    teacher: nn.Module | None
    task: Task
    data: Data
    progress: Progress | None
    checkpoint: Checkpoint | None
    bn_examples: int
    options: Mapping[str, Any]

    def best(self, stage: str, epochs: int, resume: TrainState | None) -> Fit:
        def keep(state: TrainState) -> None:
            if self.checkpoint is not None:
                self.checkpoint(replace(state, stage=stage))

        return self._run(epochs, keep, resume, self.bn_examples, self.options)

    def last(self, stage: str, epochs: int, resume: TrainState | None) -> None:
        """Leaves the model as the last epoch left it, not as the best did: the best one has fewest zeros."""
        states = [] if resume is None else [resume]

        def keep(state: TrainState) -> None:
            states[:] = [state]
            if self.checkpoint is not None:
                self.checkpoint(replace(state, stage=stage))

        self._run(epochs, keep, resume, 0, {**self.options, "early_stopping": None})
        held = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        with torch.no_grad():
            for name, tensor in (states[0].ema or states[0].model).items():
                if name in held:
                    held[name].copy_(tensor)

    def _run(
        self, epochs: int, keep: Checkpoint, resume: TrainState | None, bn: int, options: Mapping[str, Any]
    ) -> Fit:
        again = None if resume is None else replace(resume, stage=_INNER)
        return recover(
            self.model, self.teacher, self.task, self.data, epochs=epochs, bn_examples=bn,
            progress=self.progress, checkpoint=keep, resume=again, **options,
        )  # fmt: skip
