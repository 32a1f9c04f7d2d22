"""The loss of a distillation: the task's own, the distance to the teacher's answers, and what is matched inside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from penjing.core import TrainingError, UsageError
from penjing.recover._counting import counted
from penjing.recover._loss_answers import teacher_guided
from penjing.recover._losses import DistillationLoss, Signals, find_loss
from penjing.recover._matching import NOTHING, Matching
from penjing.recover._modules import call
from penjing.recover._protocols import Batch, Task
from penjing.recover._schedules import anneal
from penjing.recover._teaching import Taught

GUIDES = ("none", "teacher-guided")


def distillation_loss(
    student: nn.Module,
    teacher: nn.Module | None,
    task: Task,
    *,
    loss: str | DistillationLoss = "kl",
    temperature: float = 2.0,
    weight: float = 1.0,
    guide: str = "none",
    guide_alpha: float = 1.0,
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

    def value(given: Batch, step: int, total: int) -> Tensor:
        batch, known = (given.batch, given.logits) if isinstance(given, Taught) else (given, None)
        inputs = task.inputs(batch)
        with matching.watching(student, inputs) as seen:
            outputs = call(student, inputs)
        if teacher is None:
            return task.loss(outputs, batch)
        with torch.no_grad(), matching.watching(teacher, inputs, teacher=True) as shown:
            taught = task.logits(call(teacher, inputs)) if known is None else known
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


@contextmanager
def blaming(parts: dict[str, Tensor], loss: str) -> Iterator[None]:
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
