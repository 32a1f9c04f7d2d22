"""What folders say of pictures and sounds, and how a folder comes from the hub."""

import fnmatch
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from penjing.core import Pictures, Sounds, SourceError
from penjing.sources import _hf_files, load_source

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
SPEECH = {
    **SMALL, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip


def folder(path: Path, config: Any, processor: dict[str, Any], file: str = "preprocessor_config.json") -> str:
    config.save_pretrained(path)
    (path / file).write_text(json.dumps(processor))
    return f"hf:{path}"


@pytest.mark.parametrize(
    ("config", "processor", "expected"),
    [
        (
            transformers.ViTConfig(**SMALL, image_size=32, patch_size=8),
            {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "size": {"height": 64, "width": 64}},
            Pictures(size=(3, 32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
        ),
        (
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_channels=1),
            {"image_mean": [0.2, 0.4, 0.6], "image_std": [0.5, 0.5, 0.5], "crop_size": {"height": 48, "width": 40},
             "size": {"shortest_edge": 56}},
            Pictures(size=(1, 48, 40), mean=(0.4000000000000001,), std=(0.5,)),
        ),
        (
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
            {"do_normalize": False, "size": {"shortest_edge": 56}},
            Pictures(size=(3, 56, 56), mean=(0.0,) * 3, std=(1.0,) * 3),
        ),
    ],
)  # fmt: skip
def test_pictures(config: Any, processor: dict[str, Any], expected: Pictures, tmp_path: Path) -> None:
    loaded = load_source(folder(tmp_path, config, processor), num_classes=4, task="image-classification")
    assert loaded.reads == expected
    with torch.no_grad():
        assert loaded.model(torch.zeros(1, *expected.size)).logits.shape == (1, 4)


def test_samples(tmp_path: Path) -> None:
    said = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": 8000,
        "do_normalize": False,
    }
    said |= {"return_attention_mask": True, "processor_class": "Wav2Vec2Processor"}
    source = folder(tmp_path, transformers.Wav2Vec2Config(**SPEECH), said)
    reads = load_source(source, num_classes=4, task="speech-recognition").reads
    assert reads == Sounds(
        sample_rate=8000, features="waveform", layout="samples", keyword="input_values", mask="attention_mask"
    )
    source = folder(
        tmp_path, transformers.Wav2Vec2Config(**SPEECH), {"feature_extractor": said}, "processor_config.json"
    )
    (tmp_path / "preprocessor_config.json").unlink()
    assert load_source(source, num_classes=4, task="speech-recognition").reads == reads


def test_features_of_an_extractor(tmp_path: Path) -> None:
    said = {
        "feature_extractor_type": "ASTFeatureExtractor",
        "num_mel_bins": 16,
        "max_length": 24,
        "auto_map": {"a": "b"},
    }
    config = transformers.ASTConfig(**SMALL, patch_size=8, num_mel_bins=16, max_length=24)
    reads = load_source(folder(tmp_path, config, said), num_classes=4, task="audio-classification").reads
    assert isinstance(reads, Sounds)
    assert (reads.features, reads.layout, reads.bins, reads.frames) == ("extractor", "frames", 16, 24)
    assert reads.extractor == {k: v for k, v in said.items() if k != "auto_map"}


def test_sound_that_nothing_tells_of_is_an_error(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2BertConfig(
        **SMALL, feature_projection_input_dim=16, vocab_size=9, left_max_position_embeddings=8
    )
    with pytest.raises(SourceError, match="Nothing says what sound"):
        load_source(folder(tmp_path, config, {}), num_classes=4, task="speech-recognition")


class Hub:
    """A hub with one network, which serves what the patterns ask for into a snapshot and counts."""

    def __init__(self, files: Path, cache: Path) -> None:
        self.files, self.snapshot, self.asked = files, cache / "snapshots" / "0123abcd", []

    def snapshot_download(self, repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if repository != "somebody/net":
            raise FileNotFoundError("404 Client Error.\nRepository Not Found")
        self.asked.append((revision, tuple(allow_patterns)))
        self.snapshot.mkdir(parents=True, exist_ok=True)
        for file in self.files.iterdir():
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                shutil.copy(file, self.snapshot / file.name)
        return str(self.snapshot)

    def HfApi(self) -> Any:
        return self

    def list_repo_files(self, repository: str, *, revision: str | None) -> list[str]:
        return [file.name for file in self.files.iterdir()]

    def try_to_load_from_cache(self, repository: str, filename: str, *, revision: str | None) -> None:
        return None


@pytest.fixture
def hub(bert: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(bert(), tmp_path / "cache")
    own = _hf_files.require
    monkeypatch.setattr(
        _hf_files, "require", lambda name, extra: made if name == "huggingface_hub" else own(name, extra)
    )
    monkeypatch.setattr(_hf_files, "reachable", lambda url: None)
    return made


def test_the_hub_is_asked_for_weights_only_where_they_are_needed(hub: Hub) -> None:
    options = {"num_classes": 3, "task": "text-classification"}
    assert load_source("hf:somebody/net", weights="none", **options).weights == "none"
    assert not (hub.snapshot / "model.safetensors").exists()
    loaded = load_source("hf:somebody/net@v1", weights="pretrained", **options)
    assert loaded.weights.startswith("hub 0123abcd")
    assert loaded.reads.tokenizer == str(hub.snapshot)  # a name with a revision is none for a tokenizer
    assert hub.asked[-1] == ("v1", ("model*.safetensors",))


def test_weights_of_pytorch_are_fetched_where_there_are_no_others(hub: Hub) -> None:
    (hub.files / "model.safetensors").rename(hub.files / "pytorch_model.bin")
    with pytest.raises(
        SourceError, match=r"cannot be read|refused"
    ):  # it is a safetensors file by another name
        load_source("hf:somebody/net", weights="pretrained", num_classes=3, task="text-classification")
    assert hub.asked[-1] == (None, ("pytorch_model*.bin",))


def test_a_network_that_the_hub_does_not_have(hub: Hub) -> None:
    with pytest.raises(SourceError, match="FileNotFoundError: 404 Client Error"):
        load_source("hf:somebody/other", weights="pretrained", task="text-classification")
    (hub.files / "config.json").unlink()
    with pytest.raises(SourceError, match=r"has no config\.json"):
        load_source("hf:somebody/net", weights="pretrained", task="text-classification")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SourceError, match=r"pip install 'penjing\[text\]'"):
        load_source("hf:bert", task="text-classification")
