"""Token classification as a task: a tag for every word of a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from penjing.core import UsageError
from penjing.tasks._entities import entities, entity_scores, kinds
from penjing.tasks._ragged import UNCOUNTED

Tags = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClassification:
    """Batches are (the forward's arguments, targets [b, tokens]); outputs hold logits [b, tokens, tags].

    A target is a tag number at the first token of each word, and -100 elsewhere (later tokens of a word, special
    tokens, padding), where nothing counts.
    """

    labels: tuple[str, ...]
    label_smoothing: float = 0.0
    name: str = "token-classification"
    headline: tuple[str, bool] = ("f1", True)

    def inputs(self, batch: Any) -> Any:
        return batch[0]

    def targets(self, batch: Any) -> Tensor:
        return batch[1]

    def logits(self, outputs: Any) -> Tensor:
        """The tensor called logits, or the first that is there."""
        if isinstance(outputs, Tensor):
            return outputs
        if isinstance(outputs, tuple | list):
            found = next((value for value in outputs if isinstance(value, Tensor)), None)
        else:
            found = (
                outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
            )
        if not isinstance(found, Tensor):
            raise UsageError(
                f"No logits in outputs of type {type(outputs).__name__}. Fix: return a tensor [batch, tokens, tags]"
            )
        return found

    def loss(self, outputs: Any, batch: Any) -> Tensor:
        """Mean cross entropy over the words; 0 where a batch has none."""
        logits, targets = self.logits(outputs), self.targets(batch)
        _check(logits, targets)
        total = F.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=UNCOUNTED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return total / (targets != UNCOUNTED).sum().clamp(min=1)

    def positions(self, logits: Tensor, batch: Any) -> Tensor:
        """The first token of each word, bool [b, tokens]."""
        targets = self.targets(batch)
        _check(logits, targets)
        return targets != UNCOUNTED

    def answers(self, logits: Tensor, batch: Any) -> Sequence[Tags]:
        """Per sentence the number of the most likely tag of each word."""
        return _by_word(logits.argmax(-1), self.positions(logits, batch))

    def truths(self, batch: Any) -> Sequence[Tags]:
        """Per sentence the number of each word's tag; words cut off by the length limit are not among them."""
        targets = self.targets(batch)
        return _by_word(targets, targets != UNCOUNTED)

    def metric(self, answers: Sequence[Tags], truths: Sequence[Tags]) -> Mapping[str, Any]:
        """ "f1", "precision" and "recall" of whole entities (see `tasks._entities`), "accuracy" and "per_class".

        "accuracy" is the share of words with the right tag. It is not how many entities are found: where most words
        are outside of any, answering "O" everywhere looks good. "per_class" is F1 by kind of entity, not recall by
        tag; NaN for a kind not met.
        """
        if len(answers) != len(truths) or any(map(_unequal, answers, truths)):
            raise UsageError(
                "Answers and truths differ in length. Fix: give one tag per word, sentence by sentence"
            )
        said, true = ([[self.labels[tag] for tag in row] for row in rows] for rows in (answers, truths))
        scores = entity_scores(said, true, kinds(self.labels))
        words = sum(map(len, truths))
        right = sum(
            a == b
            for row, other in zip(answers, truths, strict=True)
            for a, b in zip(row, other, strict=True)
        )
        return {
            "f1": scores.f1,
            "precision": scores.precision,
            "recall": scores.recall,
            "accuracy": right / words if words else float("nan"),
            "per_class": scores.f1_by_kind,
        }

    def tallies(self, answers: Sequence[Tags], truths: Sequence[Tags]) -> list[tuple[float, float]]:
        """Per sentence what it adds to the two sums whose ratio is F1: (2 right, answered + there)."""
        found = []
        for answer, truth in zip(answers, truths, strict=True):
            said, true = (set(entities([self.labels[tag] for tag in row])) for row in (answer, truth))
            found.append((2.0 * len(said & true), float(len(said) + len(true))))
        return found


def token_classification(labels: Sequence[str], label_smoothing: float = 0.0) -> TokenClassification:
    """The task of tagging each word of a sentence with one of `labels`, of which "O" is outside of any entity.

    Tags without B-, I-, E- or S- (parts of speech, say) are read as I-: equal ones in a row make one entity, and
    "accuracy" says more than "f1". `label_smoothing` in [0, 1) spreads that share of each target over all tags, in
    the loss alone. Raises UsageError.
    """
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise UsageError(
            f"Labels {tuple(labels)} are not two or more different tags. Fix: give ('O', 'B-PER', 'I-PER')"
        )
    if not 0.0 <= label_smoothing < 1.0:
        raise UsageError(
            f"label_smoothing is {label_smoothing}; it lies in [0, 1). Fix: 0.1 is usual, 0 is off"
        )
    return TokenClassification(labels=tuple(labels), label_smoothing=label_smoothing)


def _by_word(numbers: Tensor, counted: Tensor) -> list[Tags]:
    return [tuple(row[keep].tolist()) for row, keep in zip(numbers.cpu(), counted.cpu(), strict=True)]


def _unequal(left: Tags, right: Tags) -> bool:
    return len(left) != len(right)


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 3 or logits.shape[:2] != targets.shape:
        raise UsageError(
            f"Tagging needs logits [batch, tokens, tags] for targets {list(targets.shape)}; got {list(logits.shape)}. "
            "Fix: give a network that answers for every token"
        )
