"""A tokenizer small enough to check by hand."""

from pathlib import Path
from typing import Any

import pytest

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "cat",
    "dog",
    "sat",
    "##s",
    "##ly",
    "who",
    "?",
    "new",
    "york",
    ".",
]


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a word-piece tokenizer of 15 tokens: [CLS] text [SEP] (text [SEP])."""
    transformers: Any = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    transformers.BertTokenizer(vocab={piece: n for n, piece in enumerate(PIECES)}).save_pretrained(folder)
    return folder
