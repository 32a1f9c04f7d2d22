"""Heads of our own for encoders of transformers that have none for the task."""

from typing import Any

import torch
from torch import Tensor, nn

POOLINGS = ("mean", "cls", "max", "last")


class SentenceClassifier(nn.Module):
    """An encoder, one vector per text (see `pooled`), dropout, and a linear classifier. Returns the logits."""

    def __init__(self, encoder: nn.Module, width: int, classes: int, pooling: str, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)
        self.pooling = pooling

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        states = _encoded(self.encoder, input_ids, attention_mask, token_type_ids)
        return self.classifier(self.dropout(pooled(states, attention_mask, self.pooling)))


class TokenClassifier(nn.Module):
    """An encoder, dropout, and a linear classifier of every position. Returns logits [b, T, classes]."""

    def __init__(self, encoder: nn.Module, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        return self.classifier(
            self.dropout(_encoded(self.encoder, input_ids, attention_mask, token_type_ids))
        )


class FramesClassifier(nn.Module):
    """An encoder of sound, the mean over the frames that count, dropout, and a linear classifier.

    `keyword` is what the encoder calls its first input.
    """

    def __init__(
        self, encoder: nn.Module, width: int, classes: int, pooling: str, dropout: float, keyword: str
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes)
        self.pooling = pooling
        self.keyword = keyword

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> Tensor:
        sounds = input_values if input_values is not None else input_features
        masks = {} if attention_mask is None else {"attention_mask": attention_mask}
        states = self.encoder(**{self.keyword: sounds}, **masks)[0]
        shorter: Any = getattr(self.encoder, "_get_feature_vector_attention_mask", None)
        mask = attention_mask
        if mask is not None and mask.shape[1] != states.shape[1]:
            mask = shorter(states.shape[1], mask) if shorter is not None else None
        return self.classifier(self.dropout(pooled(states, mask, self.pooling)))


def pooled(states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """One vector per row of `states` [b, T, width]: over the positions where `mask` [b, T] is not zero.

    "mean" as in Reimers & Gurevych, Sentence-BERT, EMNLP 2019, section 3; "cls" is the first position's, "last"
    the last one's that counts, "max" the largest value of each feature.
    """
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":
        if mask is None:
            return states[:, -1]
        last = (mask.long() * torch.arange(mask.shape[1], device=mask.device)).argmax(1)
        return states[torch.arange(len(states), device=states.device), last]
    if pooling == "max":
        hidden = states if mask is None else states.masked_fill(mask[..., None] == 0, -torch.inf)
        return hidden.amax(1)
    if mask is None:
        return states.mean(1)
    counted = mask[..., None].to(states.dtype)
    return (states * counted).sum(1) / counted.sum(1).clamp(min=1.0)


def _encoded(encoder: nn.Module, ids: Tensor, mask: Tensor | None, types: Tensor | None) -> Tensor:
    more = {} if types is None else {"token_type_ids": types}
    return encoder(input_ids=ids, attention_mask=mask, **more)[0]
