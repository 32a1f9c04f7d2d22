"""Transfer learning: a new head on a pretrained body, then the whole."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from penjing.core import UsageError
from penjing.recover._bn import adapt_bn, settle_bn
from penjing.recover._defaults import TRANSFER
from penjing.recover._engine import Checkpoint, Fit, Job, run
from penjing.recover._mixup import mixing
from penjing.recover._modules import call, channels_last, kept_modes, tensors_of
from penjing.recover._optim import Group, param_groups
from penjing.recover._probe import find_module, linear_probe
from penjing.recover._protocols import Data, Progress, Task
from penjing.recover._state import TrainState
from penjing.recover._together import spread
from penjing.recover._training import Training, training_with
from penjing.structure import surroundings_off

REGULARIZERS = ("weight_decay", "l2sp")


def transfer(
    model: nn.Module,
    task: Task,
    data: Data,
    *,
    head: str,
    probe_epochs: int = TRANSFER.probe_epochs,
    probe_lr: float = TRANSFER.probe_lr,
    probe_augment: bool | str = TRANSFER.probe_augment,
    head_lr: float | None = None,
    layer_decay: float = TRANSFER.layer_decay,
    regularizer: str = TRANSFER.regularizer,
    bn_examples: int = TRANSFER.bn_examples,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
    **options: Any,
) -> Fit:
    """Fine-tune `model`, in place, on `data`: linear probe first, then everything (Kumar et al., ICLR 2022).

    Minimises the mean task loss + lambda * R. R is weight decay, or with regularizer="l2sp" the squared
    distance to the weights at the start for the body and plain decay for the head (L2-SP, Li et al., ICML
    2018, eq. 3), decoupled from the gradient as in AdamW; lambda is `weight_decay`. `head` is the module path
    of the classifier, already replaced by one for this task. Batch-norm statistics are re-estimated on
    `bn_examples` training examples before the probe, so that the head learns on the features that
    fine-tuning starts from (AdaBN, Li et al., 2016), and after the last epoch where that helps; 0 is off.
    Options are the fields of `Training`; the defaults are `TRANSFER`. Returns the model in its best epoch on
    the selection split, with the history of the fine-tuning and the figures after the probe in `start`. To
    resume, pass the model as the first run got it.
    """
    training = _checked(training_with(TRANSFER.training, options), regularizer, layer_decay)
    find_module(model, head)
    spread(model)
    learned = mixing(task, data, training)
    anchors = _anchors(model, head, resume) if regularizer == "l2sp" else {}
    rates = {"head": head, "head_lr": head_lr, "layer_decay": layer_decay}
    probing = replace(training, epochs=probe_epochs or 1, lr=probe_lr, augment=probe_augment, mixup=0.0)
    seconds = 0.0
    with surroundings_off(), kept_modes(model), channels_last(model, on=training.channels_last):
        if resume is None or resume.stage == "probe":
            adapt_bn(model, task, data, training, examples=bn_examples)
            if probe_epochs:
                save = _with_extra(checkpoint, anchors)
                probe = _probe(model, task, data, probing, head, progress, save, resume)
                seconds, resume = probe.seconds, None
        job = Job(
            stage="transfer",
            model=model,
            task=task,
            data=data,
            training=training,
            groups=partial(_groups, model, training, anchors, **rates),
            loss=lambda batch, step, total: learned.loss(call(model, learned.inputs(batch)), batch),
            mode=model.train,
            settings={**rates, "regularizer": regularizer, "bn_examples": bn_examples},
            extra=anchors,
            seconds=seconds,
        )
        fit = run(job, progress=progress, checkpoint=checkpoint, resume=resume)
        _, after = settle_bn(model, task, data, training, examples=bn_examples)
    return replace(fit, selection=after)


def _probe(
    model: nn.Module,
    task: Task,
    data: Data,
    training: Training,
    head: str,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
    resume: TrainState | None,
) -> Fit:
    training = replace(training, early_stopping=None, ema=0.0)
    return linear_probe(
        model, task, data, training, head=head, progress=progress, checkpoint=checkpoint, resume=resume
    )


def _groups(
    model: nn.Module,
    training: Training,
    anchors: Mapping[str, Tensor],
    *,
    head: str,
    head_lr: float | None,
    layer_decay: float,
) -> tuple[Group, ...]:
    return param_groups(
        model,
        lr=training.lr,
        weight_decay=training.weight_decay,
        head=head,
        head_lr=head_lr,
        layer_decay=layer_decay,
        anchors=anchors or None,
    )


def _checked(training: Training, regularizer: str, layer_decay: float) -> Training:
    if regularizer not in REGULARIZERS:
        raise UsageError(f"regularizer must be one of {', '.join(REGULARIZERS)}, not {regularizer!r}.")
    if not 0 < layer_decay <= 1:
        raise UsageError(f"layer_decay must lie in (0, 1], not {layer_decay!r}; 1 means none.")
    return training


def _anchors(model: nn.Module, head: str, resume: TrainState | None) -> Mapping[str, Tensor]:
    """The body's weights at the start of the first run."""
    if resume is not None and resume.extra:
        return resume.extra
    body = [name for name, _ in model.named_parameters() if not name.startswith(head + ".")]
    live = tensors_of(model)
    return {name: live[name].clone() for name in body}


def _with_extra(checkpoint: Checkpoint | None, extra: Mapping[str, Tensor]) -> Checkpoint | None:
    if checkpoint is None or not extra:
        return checkpoint
    return lambda state: checkpoint(replace(state, extra=extra))
