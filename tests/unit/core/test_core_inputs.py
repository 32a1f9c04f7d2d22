"""What networks read, as plain values and back."""

import json

import pytest

from penjing.core import ArtifactError, Pictures, Reads, Sounds, Texts, reads_from_json, reads_to_json

READS = (
    Pictures(size=(3, 8, 9), mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3)),
    Texts(tokenizer="here", max_length=128, vocabulary=1000, keywords=("input_ids", "attention_mask")),
    Sounds(sample_rate=16_000, features="mels", layout="frames", bins=40, scale="power", frames=160),
    Sounds(sample_rate=8_000, features="extractor", layout="frames", extractor={"a": [1, 2]}),
)


@pytest.mark.parametrize("reads", READS, ids=lambda reads: type(reads).__name__)
def test_round_trip(reads: Reads) -> None:
    assert reads_from_json(json.loads(json.dumps(reads_to_json(reads))), "here") == reads


def test_pictures_as_they_were_always_written() -> None:
    found = reads_from_json({"input_size": [1, 8, 8], "mean": [0.5], "std": [0.5]}, "here")
    assert found == Pictures(size=(1, 8, 8), mean=(0.5,), std=(0.5,))


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        {"kind": "smells"},
        {"kind": "texts", "tokenizer": "a"},
        {"input_size": [3, 0, 8], "mean": [], "std": []},
    ]
    + [{"kind": "texts", "tokenizer": "a", "max_length": 1, "vocabulary": 2, "odd": 3}],
)
def test_anything_else_is_refused(found: object) -> None:
    with pytest.raises(ArtifactError, match=r"^here does not say what inputs the network expects"):
        reads_from_json(found, "here")
