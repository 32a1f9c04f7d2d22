"""How good answers are. Shapes: logits [examples, classes], targets [examples] of class numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError


def accuracy(logits: Tensor, targets: Tensor) -> float:
    """The share of examples whose largest logit is the target's, in [0, 1].

    It is not fairness between classes: one that is rare can fail wholly and hardly move it (see
    `macro_recall`). It is not confidence: it ignores how sure the network is.
    """
    _check(logits, targets)
    return (logits.argmax(1) == targets).double().mean().item()


def per_class_recall(logits: Tensor, targets: Tensor) -> tuple[float, ...]:
    """For each class the share of its examples that are answered with it; NaN for a class without examples.

    It is not precision: a network that answers one class always has recall 1 there.
    """
    _check(logits, targets)
    classes = logits.shape[1]
    right = targets[logits.argmax(1) == targets]
    hits = torch.bincount(right, minlength=classes).double()
    return tuple((hits / torch.bincount(targets, minlength=classes)).tolist())


def macro_recall(logits: Tensor, targets: Tensor) -> float:
    """The unweighted mean of `per_class_recall` over the classes that have examples (balanced accuracy).

    It is not macro F1: answers wrongly given to a class lower it only through the classes they were taken
    from.
    """
    return torch.tensor(per_class_recall(logits, targets), dtype=torch.float64).nanmean().item()


def negative_log_likelihood(logits: Tensor, targets: Tensor) -> float:
    """The mean of -log softmax(logits)[target], in nats.

    It is not the training loss, which may smooth labels, weight classes or add other terms; and one sure
    mistake can outweigh many right answers.
    """
    _check(logits, targets)
    return F.cross_entropy(logits.double(), targets).item()


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or not len(targets):
        raise UsageError(
            f"Metrics need logits [n, classes] and targets [n] with n > 0; got {list(logits.shape)} and "
            f"{list(targets.shape)}. Fix: concatenate the batches of a split that is not empty"
        )
