"""Distances between the answers of teacher and student: logits (..., classes), every leading position one example.

All are computed in float32 whatever the logits are, and take no gradient to the teacher's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError
from penjing.recover._losses import Signals, register_loss

TINY = 1e-8
DKD_ALPHA, DKD_BETA = 1.0, 8.0


def kd_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(p_teacher^T || p_student^T), mean over examples; a scalar in nats times T^2.

    p^T is the softmax of logits / T, and T^2 keeps the gradient's size when T changes (Hinton et al.,
    "Distilling the Knowledge in a Neural Network", 2015, section 2). Logits are (..., classes); every leading
    position counts as one example. It compares distributions, not decisions: 0 means equal probabilities,
    and a small value does not mean equal accuracy.
    """
    student, teacher = (_rows(x) / temperature for x in (student_logits, teacher_logits.detach()))
    student, teacher = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    return F.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def standardized_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """`kd_kl` between Z(z) = (z - mean(z)) / std(z), each example's logits standardised over the classes.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, eqs. 9 to 11: the student must order the
    classes as the teacher does and space them alike, and is free in shift and scale. Logits are (..., classes). It
    says nothing of confidence: with two classes Z is (1, -1) or (-1, 1) whatever the logits are, and the gradient
    vanishes, so `kd_kl` suits fewer than five classes better.
    """
    return kd_kl(_standardized(student_logits), _standardized(teacher_logits), temperature)


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    """T^2 * (beta * (1 - mean over examples of rho) + gamma * (1 - mean over classes of rho)).

    rho is the Pearson correlation of both softmax(logits / T), for an example over the classes (eq. 8) and for a
    class over the examples of the batch (eq. 9) of Huang et al., "Knowledge Distillation from A Stronger Teacher",
    NeurIPS 2022. Logits are (..., classes), at least two examples (UsageError). It compares relations, so that a much
    surer teacher asks nothing impossible of the student; 0 does not mean equal probabilities. A class to which
    either network gives the same probability in the whole batch counts as uncorrelated.
    """
    student, teacher = (
        F.softmax(_rows(x) / temperature, dim=-1) for x in (student_logits, teacher_logits.detach())
    )
    if len(student) < 2:
        raise UsageError(
            f"The distillation loss 'dist' correlates each class over the examples of a batch, and this batch has "
            f"{len(student)}. Use batch_size of at least 2 (64 or more is what it is made for), or the loss 'kl'."
        )
    between, within = _correlation(student, teacher, -1), _correlation(student, teacher, 0)
    return temperature**2 * (beta * (1 - between.mean()) + gamma * (1 - within.mean()))


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    temperature: float,
    *,
    alpha: float = DKD_ALPHA,
    beta: float = DKD_BETA,
) -> Tensor:
    """T^2 * (alpha * KL(b_teacher || b_student) + beta * KL(q_teacher || q_student)), mean over examples.

    b = (p_target, 1 - p_target) and q is the softmax over the other classes alone, at temperature T (Zhao et al.,
    "Decoupled Knowledge Distillation", CVPR 2022, eqs. 5 to 7; alpha 1 and beta 8 are theirs for CIFAR-100). With
    beta = 1 - p_target of the teacher and alpha = 1 it is `kd_kl`. Logits are (n, classes), targets [n] class numbers,
    of which -100 counts nothing. It needs the right answer, so it cannot learn from examples without labels.
    """
    student, teacher = (_rows(x) / temperature for x in (student_logits, teacher_logits.detach()))
    counts = targets.reshape(-1) >= 0
    student, teacher, right = student[counts], teacher[counts], targets.reshape(-1)[counts]
    if not len(student):
        return student.sum()
    if int(right.max()) >= student.shape[-1]:
        raise UsageError(
            f"The distillation loss 'dkd' found the class number {int(right.max())} among {student.shape[-1]} classes. "
            "Check the targets, and mark those that do not count with -100."
        )
    own, other = _binary(student, right), _binary(teacher, right)
    target = F.kl_div(own, other, reduction="batchmean", log_target=True)
    own, other = (F.log_softmax(_others(x, right), dim=-1) for x in (student, teacher))
    rest = F.kl_div(own, other, reduction="batchmean", log_target=True)
    return temperature**2 * (alpha * target + beta * rest)


def teacher_guided(student_logits: Tensor, teacher_logits: Tensor, alpha: float) -> Tensor:
    """Guided logits x + alpha * t; feed them to the task's own loss and anneal alpha to 0.

    While alpha is large the teacher already answers the easy examples, and the gradient reaches the student
    from those that the teacher gets wrong or is unsure of; at alpha 0 the student stands alone. The teacher's
    logits take no gradient. This is a training aid, never a prediction: evaluate the student's own logits.
    """
    return student_logits + alpha * teacher_logits.detach()


@register_loss("kl")
def _kl(signals: Signals) -> Tensor:
    return kd_kl(signals.student, signals.teacher, signals.temperature)


@register_loss("standardized-kl")
def _standardized_kl(signals: Signals) -> Tensor:
    return standardized_kl(signals.student, signals.teacher, signals.temperature)


@register_loss("dist")
def _dist(signals: Signals) -> Tensor:
    return dist(signals.student, signals.teacher, signals.temperature)


@register_loss("dkd")
def _dkd(signals: Signals) -> Tensor:
    targets = signals.targets
    numbered = isinstance(targets, Tensor) and targets.shape == signals.student.shape[:-1]
    if not numbered or targets.is_floating_point():
        raise UsageError(
            "The distillation loss 'dkd' needs one class number per example or position, and this task has other "
            "targets, or examples are mixed (mixup) and have two. Use 'kl' or 'standardized-kl', or mixup=0."
        )
    return dkd(signals.student, signals.teacher, targets, signals.temperature)


def _rows(logits: Tensor) -> Tensor:
    """[n, classes] of float32."""
    if logits.shape[-1] < 2:
        raise UsageError(
            "This distillation loss compares the probabilities of classes, and networks with one output have none: its "
            "probability is always 1. Use weight=0, or loss=a function of your own that takes Signals."
        )
    return logits.reshape(-1, logits.shape[-1]).float()


def _standardized(logits: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the classes; equal logits give zeros, with a finite gradient."""
    return F.layer_norm(logits.float(), logits.shape[-1:], eps=TINY)


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Pearson's coefficient along `dim`."""
    a, b = (x - x.mean(dim, keepdim=True) for x in (a, b))
    return F.cosine_similarity(a, b, dim=dim, eps=TINY)


def _others(logits: Tensor, right: Tensor) -> Tensor:
    """[n, classes - 1]: without each example's right class."""
    mask = F.one_hot(right, logits.shape[-1]).bool()
    return logits[~mask].view(len(logits), -1)


def _binary(logits: Tensor, right: Tensor) -> Tensor:
    """[n, 2]: log p of the right class and of all others together."""
    parts = (logits.gather(-1, right[:, None])[:, 0], _others(logits, right).logsumexp(-1))
    return torch.stack(parts, dim=-1) - logits.logsumexp(-1, keepdim=True)
