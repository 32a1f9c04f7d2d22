"""Slim networks of transformers that its from_pretrained opens, and those that no configuration describes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.sources import load_source, save_uniform

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

Inputs = Mapping[str, Tensor]
POOLER = ("bert.pooler.dense",)
SPEECH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LLAMA = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 48, "vocab_size": 60, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture
def texts() -> dict[str, Tensor]:
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    return {
        "input_ids": torch.randint(5, 60, (2, 9), generator=torch.Generator().manual_seed(0)),
        "attention_mask": mask,
    }


def fresh(source: str, task: str, args: Mapping[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    model = load_source(source, num_classes=5, args=args, task=task).model
    for tensor in model.parameters():
        tensor.data.add_(torch.randn(tensor.shape) * 0.05)
    return model


def network(folder: Path) -> nn.Module:
    return fresh(f"hf:{folder}", "text-classification", {})


@torch.no_grad()
def same(one: Any, other: Any, inputs: Inputs) -> bool:
    return torch.allclose(one(**inputs)[0], other(**inputs)[0], atol=1e-6)  # float32, the same operations


@pytest.fixture
def written(bert: Callable[..., Path]) -> Path:
    return bert()


def test_fewer_neurons_are_a_smaller_intermediate_size(written: Path, texts: Inputs, tmp_path: Path) -> None:
    whole = network(written)
    slim, _ = pj.prune(whole, texts, ratio=0.5, granularity=("neuron",), protect=POOLER)
    assert save_uniform(tmp_path / "out", whole, slim, texts) is None
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert (opened.config.intermediate_size, opened.config.num_labels) == (24, 5)
    assert same(opened, slim, texts)
    assert not same(opened, whole, texts)


def test_all_sizes_halved_are_one_configuration(written: Path, texts: Inputs, tmp_path: Path) -> None:
    whole = network(written)
    slim, _ = pj.prune(whole, texts, ratio=0.5)
    assert save_uniform(tmp_path / "out", whole, slim, texts) is None
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (16, 2, 24)
    again = pj.load_source(f"hf:{tmp_path / 'out'}", weights="pretrained", task="text-classification").model
    assert same(again, slim, texts)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ratio": 0.5, "granularity": ("head",)}, "query.weight its size 16 x 32"),
        ({"ratio": 0.5, "granularity": ("neuron",)}, "bert.pooler.dense.weight its size 16 x 32"),
        (
            {"ratio": {"bert.encoder.layer.1.intermediate.dense": 0.5}},
            "layer.1.intermediate.dense.weight its size 24",
        ),
    ],
)
def test_what_no_configuration_says_is_named(
    options: dict[str, Any], says: str, written: Path, texts: Inputs, tmp_path: Path
) -> None:
    whole = network(written)
    slim, _ = pj.prune(whole, texts, **options)
    assert says in str(save_uniform(tmp_path / "out", whole, slim, texts))
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


def test_sizes_that_fit_are_not_enough(written: Path, texts: Inputs, tmp_path: Path) -> None:
    whole = network(written)
    slim, _ = pj.prune(whole, texts, ratio=0.5, granularity=("neuron",), protect=POOLER)
    slim.bert.encoder.layer[0].attention.self.scaling = 0.9
    assert "the outputs differ by" in str(save_uniform(tmp_path / "out", whole, slim, texts))


def test_of_a_head_of_ours_the_encoder_is_written(
    bert: Callable[..., Path], texts: Inputs, tmp_path: Path
) -> None:
    whole = fresh(f"hf:{bert('BertModel')}", "text-classification", {})
    slim, _ = pj.prune(whole, texts, ratio=0.5)
    assert save_uniform(tmp_path / "out", whole, slim, texts) is None
    opened = transformers.BertModel.from_pretrained(tmp_path / "out", add_pooling_layer=False).eval()
    assert same(opened, slim.encoder, texts)


@pytest.mark.parametrize(
    ("source", "task", "args", "sizes"),
    [
        ("hf:wav2vec2", "speech-recognition", SPEECH, {"num_attention_heads": 2, "conv_dim": [8, 8]}),
        (
            "hf:llama",
            "text-classification",
            LLAMA,
            {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8},
        ),
    ],
)
def test_sizes_that_hang_together_are_found(
    source: str, task: str, args: dict[str, Any], sizes: dict[str, Any], texts: Inputs, tmp_path: Path
) -> None:
    whole = fresh(source, task, args)
    inputs = texts if task.startswith("text") else {"input_values": torch.randn(2, 800)}
    slim, _ = pj.prune(whole, inputs, ratio=0.5)
    assert save_uniform(tmp_path / "out", whole, slim, inputs) is None
    opened = type(whole).from_pretrained(tmp_path / "out").eval()
    assert {key: getattr(opened.config, key) for key in sizes} == sizes
    assert same(opened, slim, inputs)


def test_other_networks_and_taken_places_are_left(written: Path, texts: Inputs, tmp_path: Path) -> None:
    net = nn.Linear(3, 4)
    assert (
        save_uniform(tmp_path / "out", net, net, torch.zeros(1, 3))
        == "the network is not one of transformers"
    )
    whole = network(written)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "holds something else" in str(save_uniform(tmp_path / "mine", whole, whole, texts))
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"
    for _ in range(2):
        assert save_uniform(tmp_path / "whole", whole, whole, texts) is None
