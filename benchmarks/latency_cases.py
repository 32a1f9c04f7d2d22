"""The networks whose milliseconds are cut: two CNNs, a small BERT, a CNN over spectrograms and an LSTM."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network with random weights (time does not depend on them), its inputs, and what `prune` is told of it.

    `heads` says that it has attention; `head` is the layer that the peer must leave alone.
    """

    about: str
    make: Callable[[], tuple[nn.Module, Any]]
    head: str
    options: Mapping[str, Any]
    heads: bool = False

    def built(self) -> tuple[nn.Module, Any]:
        torch.manual_seed(0)
        model, example = self.make()
        return model.eval(), example


def _timm(name: str, pixels: int, channels: int = 3) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        import timm

        model = timm.create_model(name, in_chans=channels, num_classes=100)
        return model, torch.randn(BATCH, channels, pixels, pixels)

    return make


def _minilm() -> tuple[nn.Module, Any]:
    import transformers

    shape = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    config = transformers.BertConfig(**shape, vocab_size=8000, num_labels=6)
    tokens = torch.randint(5, 8000, (BATCH, 48))
    example = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    return transformers.BertForSequenceClassification(config), example


def _lstm() -> tuple[nn.Module, Any]:
    from penjing.sources._speaker import SpeakerNetwork

    return SpeakerNetwork(bins=40, width=256, layers=3, classes=35), torch.randn(BATCH, 100, 40)


CASES: Mapping[str, Case] = {
    "lite0": Case(
        about="EfficientNet-Lite0, 96 pixels",
        make=_timm("efficientnet_lite0", 96),
        head="classifier",
        options={"round_to": 4},
    ),
    "resnet18": Case(
        about="ResNet-18, 96 pixels", make=_timm("resnet18", 96), head="fc", options={"round_to": 8}
    ),
    "minilm": Case(
        about="BERT of MiniLM-L6's shape, 48 tokens",
        make=_minilm,
        head="classifier",
        options={"round_to": 8},
        heads=True,
    ),
    "resnet10t": Case(
        about="ResNet-10-T, spectrograms of 64 x 64",
        make=_timm("resnet10t", 64, 1),
        head="fc",
        options={"round_to": 8},
    ),
    "lstm": Case(
        about="LSTM speaker encoder, 100 frames of 40 bins",
        make=_lstm,
        head="classifier",
        options={"round_to": 2},
    ),
}
