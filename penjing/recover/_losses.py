"""Distillation losses and their registry."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError


def kd_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(p_teacher^T || p_student^T), mean over examples; a scalar in nats times T^2.

    p^T is the softmax of logits / T, and T^2 keeps the gradient's size when T changes (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015, section 2). Logits are (..., classes); every leading
    position counts as one example. It compares distributions, not decisions: 0 means equal probabilities,
    and a small value does not mean equal accuracy.
    """
    classes = student_logits.shape[-1]
    student = F.log_softmax(student_logits.reshape(-1, classes).float() / temperature, dim=-1)
    teacher = F.log_softmax(teacher_logits.reshape(-1, classes).float() / temperature, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def teacher_guided(student_logits: Tensor, teacher_logits: Tensor, alpha: float) -> Tensor:
    """Guided logits x + alpha * t; feed them to the task's own loss and anneal alpha to 0.

    While alpha is large the teacher already answers the easy examples, and the gradient reaches the student
    from those that the teacher gets wrong or is unsure of; at alpha 0 the student stands alone. The teacher's
    logits take no gradient. This is a training aid, never a prediction: evaluate the student's own logits.
    """
    return student_logits + alpha * teacher_logits.detach()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What a distillation loss may look at for one batch.

    `student` and `teacher` are logits (..., classes), of sequences [n, classes] at the positions that count;
    `targets` are the task's, selected likewise where there is one per position; `progress` runs from 0 to 1
    over the training. The hidden mappings go from module path to the stream of each layer that `match` paired,
    and are empty without it.
    """

    student: Tensor
    teacher: Tensor
    targets: Tensor | None = None
    temperature: float = 1.0
    progress: float = 0.0
    student_hidden: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_hidden: Mapping[str, Tensor] = field(default_factory=dict)


DistillationLoss = Callable[[Signals], Tensor]
_LOSSES: dict[str, DistillationLoss] = {}


def register_loss(name: str) -> Callable[[DistillationLoss], DistillationLoss]:
    """Decorator that makes a distillation loss selectable by name; a name already taken raises UsageError."""

    def add(loss: DistillationLoss) -> DistillationLoss:
        if name in _LOSSES:
            raise UsageError(f"The distillation loss {name!r} is registered already; choose another name.")
        _LOSSES[name] = loss
        return loss

    return add


def loss_names() -> tuple[str, ...]:
    """The registered names, sorted."""
    return tuple(sorted(_LOSSES))


def find_loss(loss: "str | DistillationLoss") -> DistillationLoss:
    """The loss of that name (a callable is returned as it is); an unknown name raises UsageError."""
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        near = difflib.get_close_matches(loss, _LOSSES, n=1, cutoff=0.0)
        raise UsageError(
            f"Unknown distillation loss {loss!r}; known: {', '.join(loss_names())}. Did you mean {near[0]!r}?"
        )
    return _LOSSES[loss]


@register_loss("kl")
def _kl(signals: Signals) -> Tensor:
    return kd_kl(signals.student, signals.teacher, signals.temperature)
