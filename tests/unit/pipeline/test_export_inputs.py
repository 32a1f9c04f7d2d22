"""What an exported network is tried on, and which of its dims are lengths."""

import pytest
import torch

from penjing.core import Pictures, Reads, Sounds, Texts
from penjing.pipeline._export import lengths_of, padded


@pytest.mark.parametrize(
    ("reads", "lengths"),
    [
        (Pictures(size=(3, 8, 8), mean=(0.5,), std=(0.5,)), ()),
        (Texts(tokenizer="here", max_length=16, vocabulary=9), (1,)),
        (Sounds(sample_rate=16_000, features="waveform", layout="samples"), (1,)),
        (Sounds(sample_rate=16_000, features="mels", layout="frames", bins=40), (1,)),
        (Sounds(sample_rate=16_000, features="mels", layout="frames", bins=40, frames=160), ()),
        (Sounds(sample_rate=16_000, features="mels", layout="picture", bins=40), (3,)),  # [b, 1, 40, T]
    ],
)
def test_lengths_are_the_dims_of_time_where_it_is_free(reads: Reads, lengths: tuple[int, ...]) -> None:
    assert lengths_of(reads) == lengths


def test_the_last_quarter_of_the_last_text_is_padding() -> None:
    given = {"input_ids": torch.ones(2, 8), "attention_mask": torch.ones(2, 8, dtype=torch.int64)}
    found = padded(given)
    assert found["attention_mask"].tolist() == [[1] * 8, [1] * 6 + [0] * 2]
    assert found["input_ids"] is given["input_ids"]
    assert given["attention_mask"].sum() == 16
    pictures = torch.ones(2, 3)
    assert padded(pictures) is pictures
