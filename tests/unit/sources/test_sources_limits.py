"""Sizes that nobody has are refused before memory or minutes go, with the limit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core import SourceError
from penjing.sources import _limits as limits
from penjing.sources import build_source, load_source
from penjing.sources._limits import bounded, counted, most_values, refuse_sizes

TOO_MANY = "parameters, the most that is built"


@dataclass(frozen=True)
class Hostile:
    source: str
    args: Mapping[str, Any]
    said: str
    task: str | None = "text-classification"


HOSTILE = (
    Hostile("hf:bert", {"num_hidden_layers": 10**7}, r"num_hidden_layers is 10,000,000; at most 10,000 is built"),
    Hostile("hf:bert", {"num_hidden_layers": 10**30}, r"num_hidden_layers is a number of more than 18 digits"),
    Hostile("hf:bert", {"hidden_size": 10**9, "num_attention_heads": 1}, TOO_MANY),
    Hostile("hf:bert", {"hidden_size": 10**12}, r"hidden_size is 1,000,000,000,000; at most 1,000,000,000"),
    Hostile("hf:bert", {"num_hidden_layers": 10**4, "hidden_size": 1, "num_attention_heads": 1}, "than 2,000 modules"),
    Hostile("hf:bert", {"vocab_size": 10**9}, TOO_MANY),
    Hostile("hf:bert", {"num_labels": 10**8}, r"num_labels is 100,000,000; at most 1,000,000"),
    Hostile("hf:gpt2", {"n_layer": 10**6}, r"n_layer is 1,000,000; at most 10,000"),
    Hostile("hf:wav2vec2", {"conv_dim": [10**9] * 7}, TOO_MANY, "speech-recognition"),
    Hostile("timm:vit_tiny_patch16_224", {"depth": 10**9}, r"depth is 1,000,000,000; at most 10,000", None),
    Hostile("timm:vit_tiny_patch16_224", {"embed_dim": 3 * 10**8}, TOO_MANY, None),
    Hostile("timm:resnet18", {"layers": [2, 2, 2, 10**5]}, r"layers is 100,000; at most 10,000", None),
    Hostile("torchvision:resnet18", {"num_classes": 10**9}, r"num_classes is 1,000,000,000", None),
    Hostile("builtin:speaker-lstm", {"width": 10**8}, TOO_MANY, "audio-classification"),
    Hostile("builtin:speaker-lstm", {"layers": 10**7}, r"layers is 10,000,000; at most 10,000", "audio-classification"),
)  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: f"{case.source} {case.args}"[:60])
def test_a_hostile_size_is_refused_with_its_limit(case: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("transformers",) if case.source.startswith("hf:") else ():
        pytest.importorskip(package)
    monkeypatch.setattr(limits, "most_values", lambda: 10**9)
    monkeypatch.setattr(limits, "MOST_PARTS", 2_000)
    with pytest.raises(SourceError, match=case.said) as raised:
        load_source(case.source, weights="none", num_classes=3, args=case.args, task=case.task)
    assert "Fix: give smaller sizes" in str(raised.value)


def test_an_artifact_cannot_ask_for_them_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "most_values", lambda: 10**7)
    with pytest.raises(SourceError, match=TOO_MANY):
        build_source("timm:resnet18", {"num_classes": 10**6})
    with pytest.raises(SourceError, match="at most 10,000"):
        build_source("timm:vit_tiny_patch16_224", {"depth": 10**5})


def test_counting_leaves_the_random_numbers_as_they_were() -> None:
    torch.manual_seed(0)
    first = load_source("timm:resnet10t", weights="none", args={"in_chans": 1}).model.state_dict()
    torch.manual_seed(0)
    timm = pytest.importorskip("timm")
    second = timm.create_model("resnet10t", in_chans=1).state_dict()
    assert all(torch.equal(second[name], value) for name, value in first.items())


def test_modules_tensors_and_buffers_count_within_and_no_longer_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(11))
            self.register_buffer("none", None)

    monkeypatch.setattr(limits, "most_values", lambda: 10)
    monkeypatch.setattr(limits, "MOST_PARTS", 3)
    with bounded("it"):
        nn.Linear(3, 2)
    with bounded("it"), pytest.raises(SourceError, match="it would have more than 10 parameters"):
        Table()
    with bounded("it"), pytest.raises(SourceError, match="more than 3 modules and tensors"):
        nn.Sequential(*(nn.ReLU() for _ in range(4)))
    with bounded("it"):
        nn.LazyLinear(4)
    Table()
    counted(lambda: nn.Sequential(nn.Linear(1, 1).to("cpu")), "what meta cannot do passes")


def test_usual_sizes_pass() -> None:
    refuse_sizes(
        {"rope_theta": 10**9, "depths": [3, 3, 27, 3], "vocab_size": 262_144, "n_positions": 10**6}, "it"
    )
    assert 10**8 < most_values() <= limits.MOST_VALUES
