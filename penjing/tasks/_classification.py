"""Classification as a task, of pictures, texts or sounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError
from penjing.tasks._metrics import accuracy, macro_recall, negative_log_likelihood, per_class_recall
from penjing.tasks._protocols import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Batches are (inputs, targets [n]); outputs are logits [n, classes], or hold them.

    Inputs are a tensor (pictures [n, c, h, w]) or a dict of the forward's arguments (token ids and their mask).
    """

    name: str
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None

    def inputs(self, batch: Any) -> Any:
        return batch[0]

    def targets(self, batch: Any) -> Tensor:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        """The main classifier's logits; auxiliary classifiers' are left out."""
        return all_logits(outputs)[0]

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Mean cross entropy; of one auxiliary classifier in the outputs 0.4 is added, of each of two 0.3.

        Weights of the auxiliary losses: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 5
        (0.3); 0.4 for Inception v3 as torchvision's reference training has it. Networks return them in
        training mode only.
        """
        main, *others = all_logits(outputs)
        total = self._cross_entropy(main, batch)
        share = 0.4 if len(others) == 1 else 0.3
        for logits in others:
            total = total + share * self._cross_entropy(logits, batch)
        return total

    def metric(self, logits: Tensor, targets: Tensor) -> Metrics:
        """ "accuracy", "macro_recall", "per_class" (recall by class number) and "nll" (nats): see
        `tasks._metrics`.
        """
        return {
            "accuracy": accuracy(logits, targets),
            "macro_recall": macro_recall(logits, targets),
            "per_class": per_class_recall(logits, targets),
            "nll": negative_log_likelihood(logits, targets),
        }

    def _cross_entropy(self, logits: Tensor, batch: Any) -> Tensor:
        weights = None
        if self.class_weights is not None:
            weights = torch.tensor(self.class_weights, device=logits.device, dtype=logits.dtype)
        return F.cross_entropy(
            logits, self.targets(batch), weight=weights, label_smoothing=self.label_smoothing
        )


def image_classification(
    label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Classification:
    """The task of naming the one class of each picture: see `classification`."""
    return classification("image-classification", label_smoothing, class_weights)


def text_classification(
    label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Classification:
    """The task of naming the one class of each text, or of each pair of texts: see `classification`."""
    return classification("text-classification", label_smoothing, class_weights)


def audio_classification(
    label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Classification:
    """The task of naming the one class of each clip (a word, a speaker, a language): see `classification`."""
    return classification("audio-classification", label_smoothing, class_weights)


def classification(
    name: str, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
) -> Classification:
    """The task of naming the one class of each example.

    `label_smoothing` in [0, 1) spreads that share of each target over all classes; `class_weights`, one
    positive number per class, counter imbalance. Both act on the loss alone. Raises UsageError.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(
            f"label_smoothing is {label_smoothing}; it lies in [0, 1). Fix: 0.1 is usual, 0 is off"
        )
    weights = None if class_weights is None else tuple(float(w) for w in class_weights)
    if weights is not None and not all(w > 0.0 for w in weights):
        raise UsageError(
            f"class_weights are {weights}; each must be positive. Fix: give one positive number per class"
        )
    return Classification(name=name, label_smoothing=label_smoothing, class_weights=weights)


def all_logits(outputs: Any) -> list[Tensor]:
    """Main logits, then those of auxiliary classifiers, in a tensor, a (named) tuple, a dict or an object."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, tuple | list):
        found = [value for value in outputs if isinstance(value, Tensor)]
    else:
        value = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
        found = [value] if isinstance(value, Tensor) else []
    if not found:
        raise UsageError(
            f"No logits in outputs of type {type(outputs).__name__}. "
            "Fix: return a tensor, or give a task of your own whose logits() finds them"
        )
    return found
