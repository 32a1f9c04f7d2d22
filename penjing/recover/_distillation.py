"""The loss of a distillation: the task's own, the distance to the teacher's answers, and what is matched inside."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from penjing.core import TrainingError, UsageError
from penjing.recover._counting import classes_last, counted
from penjing.recover._loss_answers import teacher_guided
from penjing.recover._losses import DistillationLoss, Signals, find_loss
from penjing.recover._matching import NOTHING, Matching
from penjing.recover._modules import call
from penjing.recover._protocols import Batch, SequenceTask, Task
from penjing.recover._schedules import anneal
from penjing.recover._teaching import Taught
from penjing.recover._training import inside

GUIDES = ("none", "teacher-guided")
TEMPERATURES = 0.01, 1000  # beyond, float32 probabilities are 0 and 1, or all equal, and say nothing
ANSWERS = {"teacher": "the teacher's answers (check the teacher alone)", "student": "the student's answers"}


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
    inside("temperature", temperature, *TEMPERATURES)
    inside("weight", weight, 0)
    inside("guide_alpha", guide_alpha, 0)
    distance, guided = find_loss(loss), _checked(guide) == "teacher-guided"

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
            parts.update(teacher=taught.detach(), student=own.detach())
        return sum(told.values(), signals.student.new_zeros(()))

    return value


@contextmanager
def blaming(parts: dict[str, Tensor], loss: str) -> Iterator[None]:
    """Adds to the message of a training that left the numbers which term of its last loss did, and whose answers."""
    try:
        yield
    except TrainingError as error:
        names = {"task": "the task's own loss", "matching": "the matching of layers"}
        names["distance"] = f"the distance {loss!r} to the teacher"
        odd = [name for name, part in parts.items() if not part.isfinite().all()]
        found = [f"{names[name]} is {float(parts[name])}" for name in odd if name in names]
        whose = [ANSWERS[name] for name in odd if name in ANSWERS]
        said = f" Of its terms, {', '.join(found)}." if found else ""
        said += f" Not finite in that batch: {' and '.join(whose)}." if whose else ""
        raise TrainingError(f"{error}{said}") from error


def _signals(
    task: Task, batch: Batch, own: Tensor, taught: Tensor, temperature: float, progress: float
) -> Signals:
    """What the distance looks at: of a sequence task the positions that count, and their targets if they have any."""
    targets = task.targets(batch)
    if not isinstance(task, SequenceTask):
        own, taught = classes_last(own, targets), classes_last(taught, targets)
    placed = isinstance(targets, Tensor) and targets.shape == own.shape[:-1]
    student, teacher, *rest = counted(task, batch, own, taught, *((targets,) if placed else ()))
    return Signals(
        student=student,
        teacher=teacher,
        targets=rest[0] if rest else targets,
        temperature=temperature,
        progress=progress,
    )


def _checked(guide: str) -> str:
    if guide not in GUIDES:
        raise UsageError(f"guide must be one of {', '.join(GUIDES)}, not {guide!r}.")
    return guide
