"""A tiny BERT and a tokenizer for it, in a folder as transformers leaves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WORDS = 60
SIZES = {
    "vocab_size": WORDS,
    "max_position_embeddings": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "pad_token_id": 0,
}


@pytest.fixture
def write_tokenizer() -> Callable[..., None]:
    """(folder, pad=0, words=WORDS, **names of special tokens) writes a tokenizer of words w0, w1, ..."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    def write(folder: Path, *, pad: int | None = 0, words: int = WORDS, **special: str) -> None:
        names = [f"w{number}" for number in range(words)]
        names[2], names[3] = "[CLS]", "[UNK]"
        if pad is not None:
            names[pad] = "[PAD]"
            special["pad_token"] = "[PAD]"
        made = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=made, unk_token="[UNK]", cls_token="[CLS]", model_max_length=32, **special
        )
        fast.save_pretrained(folder)

    return write


@pytest.fixture
def bert(tmp_path: Path, write_tokenizer: Callable[..., None]) -> Callable[..., Path]:
    """(maker="BertForMaskedLM", **configuration) writes a folder and returns it."""
    transformers = pytest.importorskip("transformers")

    def write(maker: str = "BertForMaskedLM", **config: Any) -> Path:
        torch.manual_seed(0)
        folder = tmp_path / f"net{len(list(tmp_path.iterdir()))}"
        getattr(transformers, maker)(transformers.BertConfig(**{**SIZES, **config})).save_pretrained(folder)
        write_tokenizer(folder)
        return folder

    return write
