"""Knowledge distillation, and recovery after pruning."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import Plan, TrainingError, UsageError
from penjing.recover._bn import settle_bn
from penjing.recover._counting import counted
from penjing.recover._defaults import DISTIL, RECOVER
from penjing.recover._engine import Checkpoint, Fit, Job, run
from penjing.recover._layers import LayerMap
from penjing.recover._loss_answers import teacher_guided
from penjing.recover._losses import DistillationLoss, Signals, find_loss, name_of, needs_of
from penjing.recover._matching import NOTHING, Matching, match
from penjing.recover._modules import call, channels_last, kept_modes
from penjing.recover._optim import param_groups
from penjing.recover._protocols import Batch, Data, Progress, Task
from penjing.recover._schedules import anneal
from penjing.recover._state import TrainState
from penjing.recover._teachers import check_teacher
from penjing.recover._training import Training, training_with

GUIDES = ("none", "teacher-guided")


def distillation_loss(
    student: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    *,
    loss: str | DistillationLoss = DISTIL.loss,
    temperature: float = DISTIL.temperature,
    weight: float = DISTIL.weight,
    guide: str = DISTIL.guide,
    guide_alpha: float = DISTIL.guide_alpha,
    matching: Matching = NOTHING,
    parts: dict[str, Tensor] | None = None,
) -> Callable[[Batch, int, int], Tensor]:
    """The function (batch, step, total) -> scalar: task loss + weight * distance to the teacher's outputs.

    Teacher and student see the same inputs; the teacher runs without gradients, in the mode it is in. With
    guide="teacher-guided" the task loss is taken on `teacher_guided` logits, alpha falling from `guide_alpha`
    at step 0 to 0 at the last step; it needs a task whose loss takes bare logits. Of sequences the distance sees
    the positions that count, [n, classes], and no padding. `matching` (`match`) adds terms that draw hidden
    states and attention to the teacher's; `parts` is filled with each call's terms. teacher=None gives the task loss
    alone.
    """
    distance, guided = find_loss(loss), _checked(guide, temperature, weight) == "teacher-guided"

    def value(batch: Batch, step: int, total: int) -> Tensor:
        inputs = task.inputs(batch)
        with matching.watching(student, inputs) as seen:
            outputs = call(student, inputs)
        if teacher is None:
            return task.loss(outputs, batch)
        with torch.no_grad(), matching.watching(teacher, inputs, teacher=True) as shown:
            taught = task.logits(call(teacher, inputs))
        own = task.logits(outputs)
        signals = _signals(task, batch, own, taught, temperature, step / max(1, total))
        signals = matching.signals(signals, seen, shown, task, batch, own)
        if guided:
            outputs = teacher_guided(own, taught, anneal(step, total, start=guide_alpha))
        told = {"task": task.loss(outputs, batch), "matching": matching.distance(signals)}
        if weight and signals.student.numel():
            told["distance"] = weight * distance(signals)
        if parts is not None:
            parts.update({name: part.detach() for name, part in told.items()})
        return sum(told.values(), signals.student.new_zeros(()))

    return value


def distil(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    data: Data,
    *,
    loss: str | DistillationLoss = DISTIL.loss,
    temperature: float = DISTIL.temperature,
    weight: float = DISTIL.weight,
    guide: str = DISTIL.guide,
    guide_alpha: float = DISTIL.guide_alpha,
    hidden: float = DISTIL.hidden,
    hidden_layers: LayerMap = DISTIL.hidden_layers,
    attention: float = DISTIL.attention,
    attention_layer: int = DISTIL.attention_layer,
    plan: Plan | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
    **options: Any,
) -> Fit:
    """Train `student`, in place, on the task and on `teacher`'s outputs (`distillation_loss`).

    The teacher stays in eval mode and unchanged; it may have another architecture, but must have the same
    classes (UsageError) and take the same inputs. `hidden` and `attention` are the weights of terms that draw
    hidden states and attention of encoders to the teacher's; `hidden_layers` and `attention_layer` say which,
    and `plan` is what cut the student from this teacher, if anything did (`match`). Options are the fields of
    `Training`; the defaults are `DISTIL`. Returns the student in its best epoch on the selection split.
    """
    training = training_with(DISTIL.training, options)
    terms = {
        "loss": loss,
        "temperature": temperature,
        "weight": weight,
        "guide": guide,
        "guide_alpha": guide_alpha,
    }
    matched = {
        "hidden": hidden,
        "hidden_layers": hidden_layers,
        "attention": attention,
        "attention_layer": attention_layer,
        "plan": plan,
    }
    parts: dict[str, Tensor] = {}
    job = _job("distil", student, teacher, task, data, training, {**terms, "parts": parts}, matched)
    with _blaming(parts, job.settings["loss"]):
        return run(job, progress=progress, checkpoint=checkpoint, resume=resume)


def recover(
    slim: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    data: Data,
    *,
    loss: str | DistillationLoss = RECOVER.loss,
    temperature: float = RECOVER.temperature,
    weight: float = RECOVER.weight,
    guide: str = RECOVER.guide,
    guide_alpha: float = RECOVER.guide_alpha,
    hidden: float = RECOVER.hidden,
    hidden_layers: LayerMap = RECOVER.hidden_layers,
    attention: float = RECOVER.attention,
    attention_layer: int = RECOVER.attention_layer,
    plan: Plan | None = None,
    bn_examples: int = RECOVER.bn_examples,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    resume: TrainState | None = None,
    **options: Any,
) -> Fit:
    """Win back, in place, what pruning lost: a learning-rate restart with distillation from `teacher`.

    The rate rises over 5% of the steps to its peak, then follows a cosine to 0 (Le & Hua, ICLR 2021).
    `teacher` is the network before pruning, or None for the task loss alone. Before the first and after the
    last epoch batch-norm statistics are re-estimated on `bn_examples` training examples without augmentation
    (EagleEye, ECCV 2020) and kept where the selection split says that they help; 0 is off. `hidden`,
    `attention` and `plan` are as in `distil`. Options are the
    fields of `Training`; the defaults are `RECOVER`. `start` of the result also holds given_loss and
    given_accuracy, the figures before any of this.
    """
    training = training_with(RECOVER.training, options)
    terms = {
        "loss": loss,
        "temperature": temperature,
        "weight": weight,
        "guide": guide,
        "guide_alpha": guide_alpha,
    }
    matched = {
        "hidden": hidden,
        "hidden_layers": hidden_layers,
        "attention": attention,
        "attention_layer": attention_layer,
        "plan": plan,
    }
    parts: dict[str, Tensor] = {}
    job = _job("recover", slim, teacher, task, data, training, {**terms, "parts": parts}, matched)
    job = replace(job, settings={**job.settings, "bn_examples": bn_examples})
    settle = partial(settle_bn, slim, task, data, training, examples=bn_examples)
    with kept_modes(slim), channels_last(slim, on=training.channels_last):
        if resume is None:
            before, _ = settle()
            job = replace(job, given={f"given_{name}": value for name, value in before.items()})
        with _blaming(parts, job.settings["loss"]):
            fit = run(job, progress=progress, checkpoint=checkpoint, resume=resume)
        _, after = settle()
    return replace(fit, selection=after)


def _job(
    stage: str,
    student: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    data: Data,
    training: Training,
    terms: dict[str, Any],
    matched: dict[str, Any],
) -> Job:
    matching = NOTHING
    if teacher is not None:
        check_teacher(student, teacher, task, data)
        batch = next(iter(data.batches("selection", 2)))
        needs = needs_of(terms["loss"])
        matching = match(student, teacher, task, batch, seed=training.seed, needs=needs, **matched)
    elif matched["hidden"] or matched["attention"]:
        raise UsageError("hidden and attention draw the student to a teacher; give one, or leave them at 0.")

    def mode() -> None:
        student.train()
        if teacher is not None:
            teacher.eval()

    named = {**terms, "loss": name_of(terms["loss"])}
    del named["parts"]
    return Job(
        stage=stage,
        model=student,
        task=task,
        data=data,
        training=training,
        groups=partial(param_groups, student, lr=training.lr, weight_decay=training.weight_decay),
        loss=distillation_loss(student, teacher, task, **terms, matching=matching),
        mode=mode,
        settings={**named, "teacher": teacher is not None, **matching.settings()},
        helpers=matching.maps,
        beside=() if teacher is None else (teacher,),
    )


@contextmanager
def _blaming(parts: dict[str, Tensor], loss: str) -> Iterator[None]:
    """Adds to the message of a training that left the numbers which term of its last loss did."""
    try:
        yield
    except TrainingError as error:
        names = {"task": "the task's own loss", "matching": "the matching of layers"}
        names["distance"] = f"the distance {loss!r} to the teacher"
        found = [f"{names[name]} is {float(part)}" for name, part in parts.items() if not part.isfinite()]
        raise TrainingError(f"{error} Of its terms, {', '.join(found)}." if found else str(error)) from error


def _signals(
    task: Task, batch: Batch, own: Tensor, taught: Tensor, temperature: float, progress: float
) -> Signals:
    """What the distance looks at: of a sequence task the positions that count, and their targets if they have any."""
    targets = task.targets(batch)
    placed = isinstance(targets, Tensor) and targets.shape == own.shape[:-1]
    student, teacher, *rest = counted(task, batch, own, taught, *((targets,) if placed else ()))
    return Signals(
        student=student,
        teacher=teacher,
        targets=rest[0] if rest else targets,
        temperature=temperature,
        progress=progress,
    )


def _checked(guide: str, temperature: float, weight: float) -> str:
    if guide not in GUIDES:
        raise UsageError(f"guide must be one of {', '.join(GUIDES)}, not {guide!r}.")
    if temperature <= 0 or weight < 0:
        raise UsageError(
            f"temperature must be above 0 and weight at least 0, not {temperature!r} and {weight!r}."
        )
    return guide
