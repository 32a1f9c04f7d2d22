"""A row of the tables of `transformers` networks, and what the networks are fed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

Inputs = dict[str, torch.Tensor]
VOCABULARY = 99


@dataclass(frozen=True, slots=True)
class Row:
    """One architecture: head class, inputs, config values, attention implementation (None: the default)."""

    head: str
    feed: Callable[[], Inputs]
    config: dict[str, Any] = field(default_factory=dict)
    attention: str | None = None


def tokens(length: int = 11, low: int = 5) -> torch.Tensor:
    return torch.randint(low, VOCABULARY, (2, length))


def padded(length: int = 11) -> torch.Tensor:
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length - 3 :] = 0
    return mask


def text(length: int = 11) -> Inputs:
    return {"input_ids": tokens(length), "attention_mask": padded(length)}


def causal(length: int = 11) -> Inputs:
    return {"input_ids": tokens(length), "attention_mask": torch.ones(2, length, dtype=torch.long)}


def plain(length: int = 11) -> Inputs:
    return {"input_ids": tokens(length)}


def two_texts(length: int = 11) -> Inputs:
    return {**text(length), "decoder_input_ids": tokens(7)}


def laid_out() -> Inputs:
    return {**text(), "bbox": torch.randint(0, 50, (2, 11, 4)).sort(-1).values}


def text_and_entities(length: int = 11) -> Inputs:
    places = torch.full((2, 3, 4), -1)
    places[..., :2] = torch.randint(0, length, (2, 3, 2))
    return {
        **text(length),
        "entity_ids": torch.randint(1, 20, (2, 3)),
        "entity_attention_mask": torch.ones(2, 3, dtype=torch.long),
        "entity_position_ids": places,
    }


def image(size: int = 32, channels: int = 3) -> Inputs:
    return {"pixel_values": torch.randn(2, channels, size, size)}


def video(frames: int = 2, size: int = 32) -> Inputs:
    return {"pixel_values": torch.randn(2, frames, 3, size, size)}


def wave(length: int = 1600) -> Inputs:
    return {"input_values": torch.randn(2, length)}


def features(name: str = "input_features", length: int = 40, bins: int = 16, **more: int) -> Inputs:
    decoder = {"decoder_input_ids": tokens(more["decoder"])} if "decoder" in more else {}
    return {name: torch.randn(2, length, bins), **decoder}


def mel(length: int = 40, bins: int = 16) -> Inputs:
    return {"input_features": torch.randn(2, bins, length), "decoder_input_ids": tokens(7)}


def picture_and_text(size: int = 32, length: int = 11, **more: torch.Tensor) -> Inputs:
    return {**text(length), **image(size), **more}
