"""Networks of transformers from folders and types: loaded, pruned to a half, proven, saved and opened again."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import penjing as pj
from penjing.core import Sounds, Texts
from penjing.sources import build_source, find_head, load_source

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

WORDS = 60
TEXT = {"vocab_size": WORDS, "max_position_embeddings": 40, "pad_token_id": 0}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SPEECH = {
    **BERT,
    "conv_dim": (16, 16),
    "conv_stride": (5, 2),
    "conv_kernel": (10, 3),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
}


def texts() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    return {
        "input_ids": torch.randint(5, WORDS, (2, 9), generator=generator) * mask,
        "attention_mask": mask,
    }


def waves() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 800, generator=torch.Generator().manual_seed(0))}


def mels() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(0))}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A class of transformers that writes a folder, the task, and what comes out of that folder."""

    maker: str
    task: str
    config: Mapping[str, Any]
    inputs: Callable[[], dict[str, Tensor]]
    loaded: str
    head: str


Write = Callable[[Case, Path], nn.Module]
CASES = {
    "bert": Case(
        maker="BertForMaskedLM", task="text-classification", config={**TEXT, **BERT}, inputs=texts,
        loaded="BertForSequenceClassification", head="classifier",
    ),
    "bert tokens": Case(
        maker="BertModel", task="token-classification", config={**TEXT, **BERT}, inputs=texts,
        loaded="BertForTokenClassification", head="classifier",
    ),
    "bare encoder": Case(
        maker="BertModel", task="text-classification", config={**TEXT, **BERT}, inputs=texts,
        loaded="SentenceClassifier", head="classifier",
    ),
    "roberta": Case(
        maker="RobertaForMaskedLM", task="text-classification", config={**TEXT, **BERT, "pad_token_id": 1},
        inputs=texts, loaded="RobertaForSequenceClassification", head="classifier.out_proj",
    ),
    "distilbert": Case(
        maker="DistilBertForMaskedLM", task="text-classification", inputs=texts,
        config={**TEXT, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
        loaded="DistilBertForSequenceClassification", head="classifier",
    ),
    "deberta": Case(
        maker="DebertaV2ForMaskedLM", task="text-classification", inputs=texts,
        config={
            **TEXT, **BERT, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False,
        },
        loaded="DebertaV2ForSequenceClassification", head="classifier",
    ),
    "albert": Case(
        maker="AlbertForMaskedLM", task="text-classification", inputs=texts,
        config={**TEXT, **BERT, "embedding_size": 16},
        loaded="AlbertForSequenceClassification", head="classifier",
    ),
    "wav2vec2 ctc": Case(
        maker="Wav2Vec2ForPreTraining", task="speech-recognition", inputs=waves,
        config={**SPEECH, "codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 8},
        loaded="Wav2Vec2ForCTC", head="lm_head",
    ),
    "wav2vec2": Case(
        maker="Wav2Vec2Model", task="audio-classification", inputs=waves,
        config={**SPEECH, "classifier_proj_size": 24, "feat_extract_norm": "layer", "do_stable_layer_norm": True},
        loaded="Wav2Vec2ForSequenceClassification", head="classifier",
    ),
    "hubert": Case(
        maker="HubertModel", task="audio-classification", inputs=waves, config={**SPEECH, "classifier_proj_size": 24},
        loaded="HubertForSequenceClassification", head="classifier",
    ),
    "spectrogram transformer": Case(
        maker="ASTModel", task="audio-classification", inputs=mels,
        config={**BERT, "patch_size": 8, "frequency_stride": 4, "time_stride": 4, "max_length": 24, "num_mel_bins": 16},
        loaded="ASTForAudioClassification", head="classifier.dense",
    ),
}  # fmt: skip
PARAMETERS = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.fixture
def write(write_tokenizer: Callable[..., None]) -> Write:
    """(case, folder) leaves there what save_pretrained leaves, with a tokenizer for texts, and returns the network."""

    def written(case: Case, folder: Path) -> nn.Module:
        torch.manual_seed(0)
        maker = getattr(transformers, case.maker)
        model = maker(maker.config_class(**case.config)).eval()
        for tensor in model.parameters():
            tensor.data.add_(torch.randn(tensor.shape) * 0.05)
        model.save_pretrained(folder)
        if case.inputs is texts:
            write_tokenizer(folder, pad=case.config["pad_token_id"])
        return model

    return written


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    outputs = model(**inputs)
    return outputs if isinstance(outputs, Tensor) else outputs.logits


def layout(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {key: (value.shape, value.dtype) for key, value in model.state_dict().items()}


@PARAMETERS
def test_a_folder_is_loaded_with_a_new_head_and_built_again_without_it(
    case: Case, write: Write, tmp_path: Path
) -> None:
    write(case, tmp_path)
    torch.manual_seed(1)
    loaded = load_source(f"hf:{tmp_path}", weights="pretrained", num_classes=5, task=case.task)
    assert (type(loaded.model).__name__, find_head(loaded.model)) == (case.loaded, case.head)
    assert logits(loaded.model, case.inputs()).shape[-1] == 5
    assert loaded.weights.startswith(f"folder {tmp_path.name}")
    assert not loaded.model.training
    args = json.loads(json.dumps(loaded.args, allow_nan=False))
    assert args["num_classes"] == 5
    for device in ("meta", "cpu"):
        again = build_source("hf:nowhere/else", args, device=device)
        assert layout(again) == layout(loaded.model)
        assert {parameter.device.type for parameter in again.parameters()} == {device}
    torch.manual_seed(1)
    twin = load_source(f"hf:{tmp_path}", weights="pretrained", num_classes=5, task=case.task)
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.model.parameters(), twin.model.parameters(), strict=True)
    )


@PARAMETERS
def test_the_body_keeps_its_values(case: Case, write: Write, tmp_path: Path) -> None:
    made = write(case, tmp_path)
    loaded = load_source(f"hf:{tmp_path}", weights="pretrained", num_classes=5, task=case.task).model
    body = getattr(made, made.base_model_prefix, made)
    prefix = getattr(loaded, "base_model_prefix", "encoder")
    own = getattr(loaded, prefix).state_dict()
    values = {k: v for k, v in body.state_dict().items() if "pooler" not in k}
    assert len(values) > 10
    assert all(torch.equal(own[key], value) for key, value in values.items())


@PARAMETERS
def test_half_of_it_is_pruned_proven_saved_and_opened(case: Case, write: Write, tmp_path: Path) -> None:
    write(case, tmp_path / "whole")
    loaded = load_source(f"hf:{tmp_path / 'whole'}", weights="pretrained", num_classes=5, task=case.task)
    slim, plan = pj.prune(loaded.model, case.inputs(), ratio=0.5)
    proof = pj.verify(loaded.model, slim, plan, case.inputs())
    assert proof.passed, proof.cause
    before, after = (sum(p.numel() for p in m.parameters()) for m in (loaded.model, slim))
    assert after < 0.6 * before
    pj.save(tmp_path / "slim", slim, plan, source=loaded.source, source_args=dict(loaded.args))
    for file in (tmp_path / "whole").iterdir():
        file.unlink()
    opened = pj.load(tmp_path / "slim")
    assert torch.equal(logits(opened, case.inputs()), logits(slim, case.inputs()))


@PARAMETERS
def test_it_says_what_it_reads(case: Case, write: Write, tmp_path: Path) -> None:
    write(case, tmp_path)
    reads = load_source(f"hf:{tmp_path}", weights="none", task=case.task).reads
    if case.inputs is texts:
        assert isinstance(reads, Texts)
        assert (reads.tokenizer, reads.max_length, reads.vocabulary) == (str(tmp_path), 32, WORDS)
        assert reads.keywords[:2] == ("input_ids", "attention_mask")
        return
    assert isinstance(reads, Sounds)
    assert (reads.sample_rate, reads.keyword) == (16_000, "input_values")
    if case.inputs is waves:
        masked = "attention_mask" if case.config.get("feat_extract_norm") == "layer" else ""
        assert (reads.features, reads.layout, reads.per_clip, reads.mask) == (
            "waveform",
            "samples",
            True,
            masked,
        )
    else:
        assert (reads.features, reads.layout, reads.bins, reads.frames) == ("extractor", "frames", 16, 24)
        assert reads.extractor is not None
        assert reads.extractor["num_mel_bins"] == 16
