"""Layers and attention are found in other people's encoders, by running them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.recover import find_layers
from penjing.recover._attention import attentions

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
TEXT = {"input_ids": torch.arange(1, 15).view(2, 7), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}


@dataclass(frozen=True)
class Case:
    """`spread` layers per attention: some lists hold attention and feed-forward in turn."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Any
    first: str
    width: int = 32
    spread: int = 1


def hf(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        library = pytest.importorskip("transformers")
        return getattr(library, model)(
            getattr(library, config)(**(SMALL | {"intermediate_size": 48} | options))
        )

    return build


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("timm").create_model(name, **options)


def x_transformers() -> nn.Module:
    library = pytest.importorskip("x_transformers")
    return library.TransformerWrapper(
        num_tokens=99, max_seq_len=32, attn_layers=library.Encoder(dim=32, depth=3, heads=4)
    )


def pytorch() -> nn.Module:
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True)
    return nn.Sequential(nn.Embedding(99, 32), nn.TransformerEncoder(layer, 3), nn.Linear(32, 3))


CASES = [
    Case("bert", hf("BertModel", "BertConfig"), TEXT, "encoder.layer.0"),
    Case(
        "distilbert",
        hf("DistilBertModel", "DistilBertConfig", dim=32, n_layers=3, n_heads=4, hidden_dim=48),
        TEXT,
        "transformer.layer.0",
    ),
    Case("roberta", hf("RobertaModel", "RobertaConfig"), TEXT, "encoder.layer.0"),
    Case("bert eager", hf("BertModel", "BertConfig", attn_implementation="eager"), TEXT, "encoder.layer.0"),
    Case("deberta", hf("DebertaV2Model", "DebertaV2Config"), TEXT, "encoder.layer.0"),
    Case(
        "spectrogram",
        hf("ASTModel", "ASTConfig", max_length=64, num_mel_bins=32),
        {"input_values": torch.randn(2, 64, 32)},
        "layers.0",
    ),
    Case(
        "timm",
        timm("vit_tiny_patch16_224", img_size=32, depth=3, embed_dim=48),
        torch.randn(2, 3, 32, 32),
        "blocks.0",
        width=48,
    ),
    Case("x-transformers", x_transformers, TEXT["input_ids"], "attn_layers.layers.0", spread=2),
    Case("pytorch", pytorch, TEXT["input_ids"], "1.layers.0"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_layers_and_attention_are_found(case):
    torch.manual_seed(0)
    model = case.build().eval()
    layers = find_layers(model, case.inputs)
    assert layers is not None
    assert layers.names[0] == case.first
    assert (len(layers.names), set(layers.widths), layers.time_first) == (
        3 * case.spread,
        {case.width},
        False,
    )
    with torch.no_grad(), attentions(model, 2) as seen:
        model(**case.inputs) if isinstance(case.inputs, dict) else model(case.inputs)
    assert len(seen) == 3
    for part in (part for one in seen for part in one):
        assert isinstance(part, Tensor)
        assert part.shape[0] == 2
        assert part.shape[2] == seen[0].query.shape[2]
