"""A checkpoint's trained head stays where it was trained for just the data's labels, and answers as it did."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core import SourceError
from penjing.sources import build_source, load_source
from penjing.sources._hf_labels import reorder

transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)

NAMES = {0: "neg", 1: "pos", 2: "none"}
SYMBOLS = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]
SMALL_BERT = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
SMALL_WAV = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16, 16],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "classifier_proj_size": 16,
    "apply_spec_augment": False,
}
TOKENS = torch.randint(4, 60, (3, 9), generator=torch.Generator().manual_seed(1))
SAMPLES = torch.randn(2, 800, generator=torch.Generator().manual_seed(1))

FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "BertForSequenceClassification": ("text-classification", "BertConfig", SMALL_BERT),
    "RobertaForSequenceClassification": ("text-classification", "RobertaConfig", SMALL_BERT),
    "ElectraForSequenceClassification": ("text-classification", "ElectraConfig", SMALL_BERT),
    "DistilBertForSequenceClassification": (
        "text-classification",
        "DistilBertConfig",
        {"vocab_size": 60, "dim": 32, "hidden_dim": 48, "n_layers": 1, "n_heads": 4},
    ),
    "XLMRobertaForTokenClassification": ("token-classification", "XLMRobertaConfig", SMALL_BERT),
    "BertForTokenClassification": ("token-classification", "BertConfig", SMALL_BERT),
    "Wav2Vec2ForSequenceClassification": ("audio-classification", "Wav2Vec2Config", SMALL_WAV),
    "HubertForSequenceClassification": ("audio-classification", "HubertConfig", SMALL_WAV),
    "Wav2Vec2ForCTC": ("speech-recognition", "Wav2Vec2Config", SMALL_WAV),
    "HubertForCTC": ("speech-recognition", "HubertConfig", SMALL_WAV),
}


def saved(folder: Path, maker: str, **changes: Any) -> Path:
    """A checkpoint of class `maker`, fine-tuned as far as its files can tell."""
    task, config, sizes = FAMILIES[maker]
    ctc = task == "speech-recognition"
    told = {"vocab_size": len(SYMBOLS), "pad_token_id": 0} if ctc else {"id2label": NAMES}
    torch.manual_seed(0)
    made = getattr(transformers, config)(**{**sizes, **told, **changes})
    getattr(transformers, maker)(made).save_pretrained(folder)
    if ctc:
        (folder / "vocab.json").write_text(json.dumps({s: n for n, s in enumerate(SYMBOLS)}))
    return folder


@torch.no_grad()
def logits(model: nn.Module, task: str) -> torch.Tensor:
    text = task in ("text-classification", "token-classification")
    return model.eval()(**({"input_ids": TOKENS} if text else {"input_values": SAMPLES})).logits


@pytest.mark.parametrize("maker", FAMILIES)
def test_the_logits_are_the_checkpoints_own_in_the_order_of_the_labels(tmp_path: Path, maker: str) -> None:
    folder, task = saved(tmp_path, maker), FAMILIES[maker][0]
    own = getattr(transformers, maker).from_pretrained(folder)
    names = load_source(f"hf:{folder}", weights="pretrained", task=task).own_labels
    assert len(names) == logits(own, task).shape[-1]
    turned = (*names[1:], names[0])
    for labels in (names, turned):
        loaded = load_source(f"hf:{folder}", weights="pretrained", task=task, labels=labels)
        places = [names.index(label) for label in labels]
        assert torch.equal(logits(loaded.model, task), logits(own, task)[..., places])
        assert loaded.kept_head
        assert ("rows in the data's order" in loaded.head) == (labels == turned)
        assert "new" not in loaded.weights
        if task != "speech-recognition":
            assert loaded.model.config.id2label == dict(enumerate(labels))
        again = build_source(loaded.source, loaded.args)
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in loaded.model.state_dict().items()
        }


def test_symbols_are_read_as_the_tokenizer_means_them(tmp_path: Path) -> None:
    folder = saved(tmp_path, "Wav2Vec2ForCTC", vocab_size=10)
    (folder / "added_tokens.json").write_text(json.dumps({"<more>": 8}))
    found = load_source(f"hf:{folder}", task="speech-recognition")
    assert found.own_labels == ("<pad>", "<s>", "</s>", "<unk>", " ", "A", "B", "C", "<more>", "<unused 9>")
    names = ["[PAD]", "~", "a", "b", "[UNK]", "<pad>", "^^"]
    (folder / "added_tokens.json").unlink()
    (folder / "vocab.json").write_text(json.dumps({s: n for n, s in enumerate(names)}))
    told = {
        "pad_token": {"content": "[PAD]"},
        "word_delimiter_token": "~",
        "unk_token": "[UNK]",
        "bos_token": "^^",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 7}))
    found = load_source(f"hf:{folder}", task="speech-recognition")
    assert found.own_labels == ("<blank>", " ", "a", "b", "[UNK]", "<pad>", "^^")


def test_a_space_may_be_what_is_between_words(tmp_path: Path) -> None:
    folder = saved(tmp_path, "Wav2Vec2ForCTC")
    names = ["<pad>", " ", "a", "b", "c", "d", "e", "f"]
    (folder / "vocab.json").write_text(json.dumps({s: n for n, s in enumerate(names)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"word_delimiter_token": " "}))
    assert load_source(f"hf:{folder}", task="speech-recognition").own_labels == tuple(names)


def test_the_configuration_says_which_output_is_the_blank(tmp_path: Path) -> None:
    folder = saved(tmp_path, "Wav2Vec2ForCTC")
    for labels, blank in (("abcdefg", 7), ("ab", 2)):
        symbols = (*labels, "<pad>")
        loaded = load_source(f"hf:{folder}", weights="pretrained", task="speech-recognition", labels=symbols)
        assert loaded.model.config.pad_token_id == loaded.args["config"]["pad_token_id"] == blank  # pyright: ignore


@pytest.mark.parametrize(
    ("vocabulary", "says"),
    [
        ([*SYMBOLS[:-1], "ch"], r"symbols of several characters \('ch'\)"),
        ([*SYMBOLS, "D"], r"has 'D' beyond its 8 outputs"),
        (SYMBOLS[1:], "has no blank"),
        ([*SYMBOLS[1:], "<pad>"], "blank is 0 to its configuration and 7 to its tokenizer"),
        (None, "has no vocab.json"),
    ],
)
def test_an_alphabet_that_cannot_be_trusted_gives_a_new_head(
    tmp_path: Path, vocabulary: list[str] | None, says: str
) -> None:
    folder = saved(tmp_path, "Wav2Vec2ForCTC")
    if vocabulary is None:
        (folder / "vocab.json").unlink()
    else:
        (folder / "vocab.json").write_text(json.dumps({s: n for n, s in enumerate(vocabulary)}))
    loaded = load_source(f"hf:{folder}", weights="pretrained", task="speech-recognition", labels=SYMBOLS)
    assert not loaded.kept_head
    assert loaded.own_labels == ()
    assert re.search(says, loaded.head), loaded.head
    assert "new: lm_head" in loaded.weights


@pytest.mark.parametrize(
    ("changes", "labels", "says"),
    [
        ({"id2label": {0: "LABEL_0", 1: "LABEL_1"}}, ("LABEL_0", "LABEL_1"), "gives its classes no names"),
        ({}, ("neg", "pos"), "is for neg, pos, none, the data has neg, pos"),
        ({}, ("negative", "positive", "none"), "the data has negative, positive, none"),
        ({"id2label": {0: "a", 1: "a"}}, ("a", "b"), "have one name"),
    ],
)
def test_other_classes_get_a_new_head(
    tmp_path: Path, changes: dict[str, Any], labels: tuple[str, ...], says: str
) -> None:
    folder = saved(tmp_path, "BertForSequenceClassification", **changes)
    loaded = load_source(f"hf:{folder}", weights="pretrained", task="text-classification", labels=labels)
    assert not loaded.kept_head
    assert says in loaded.head
    assert "new: classifier" in loaded.weights
    assert loaded.args["config"]["id2label"] == {str(n): label for n, label in enumerate(labels)}


def test_a_head_of_another_kind_or_without_values_is_not_kept(tmp_path: Path) -> None:
    labels = tuple(NAMES.values())
    tagger = saved(tmp_path / "tagger", "BertForTokenClassification")
    loaded = load_source(f"hf:{tagger}", weights="pretrained", task="text-classification", labels=labels)
    assert not loaded.kept_head
    assert "has none for this task" in loaded.head
    torn = saved(tmp_path / "torn", "BertForSequenceClassification")
    config = json.loads((torn / "config.json").read_text())
    names = {str(n): f"c{n}" for n in range(5)}
    (torn / "config.json").write_text(json.dumps({**config, "id2label": names}))
    loaded = load_source(
        f"hf:{torn}", weights="pretrained", task="text-classification", labels=tuple(names.values())
    )
    assert not loaded.kept_head
    assert "do not fit" in loaded.head


def test_rows_move_wherever_the_number_of_outputs_stands() -> None:
    class Crf(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.last = nn.Linear(4, classes)
            self.moves = nn.Parameter(
                torch.arange(classes * classes, dtype=torch.float32).view(classes, classes)
            )

    model, places = Crf(3), [2, 0, 1]
    weight, moves = model.last.weight.clone(), model.moves.clone()
    reorder(model, Crf(4), places)
    assert torch.equal(model.last.weight, weight[places])
    assert torch.equal(model.moves, moves[places][:, places])
    with pytest.raises(SourceError, match="no row per output"):
        reorder(nn.Linear(3, 3), nn.Linear(3, 3), places)


def test_labels_and_number_of_classes_must_agree(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="num_classes is 4, and 2 labels"):
        load_source("timm:resnet18", num_classes=4, labels=("a", "b"))
