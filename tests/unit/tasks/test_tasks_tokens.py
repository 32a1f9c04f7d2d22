"""Tagged sentences as batches of tokens: each word's tag at its first token, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.core import DataError, Texts
from penjing.tasks._examples import Example, Examples
from penjing.tasks._labelled import Labelled
from penjing.tasks._prepare import Options
from penjing.tasks._texts import TokenRows
from penjing.tasks._token_classification import token_classification
from penjing.tasks._tokens import align, stratify, tag_labels, token_data_of

Row = tuple[Sequence[str], Sequence[str]]
NEW_YORK: Row = (("a", "dogs", "sat", "new", "york"), ("O", "B-PET", "O", "B-LOC", "I-LOC"))
CAT: Row = (("catly", "sat", "."), ("B-PET", "O", "O"))


def examples(rows: Sequence[Row], parts: Sequence[str | None] | None = None) -> Examples:
    named = tuple(
        Example(tuple(words), tuple(tags), f"row {n}", part=parts[n - 1] if parts else None)
        for n, (words, tags) in enumerate(rows, start=1)
    )
    return Examples(name="x", source="x.csv", licence="none", examples=named, labels=tag_labels(named))


def many(n: int) -> list[Row]:
    """Different sentences, by turns with a place and a pet, a pet, and neither."""
    kinds: list[Row] = [NEW_YORK, CAT, (("who", "?"), ("O", "O"))]
    extra = lambda i: ("a",) * (i // 3)  # noqa: E731
    return [((*kinds[i % 3][0], *extra(i)), (*kinds[i % 3][1], *("O",) * (i // 3))) for i in range(n)]


def loaded(found: Examples, folder: Path, **options: Any) -> Labelled[TokenRows]:
    reads = Texts(tokenizer=str(folder), max_length=24, vocabulary=15)
    return token_data_of(found, reads, Options(**options))


def test_the_first_token_of_each_word_carries_its_tag(tiny_tokenizer: Path) -> None:
    data = loaded(examples(many(48)), tiny_tokenizer)
    assert data.labels == ("O", "B-LOC", "B-PET", "I-LOC")
    inputs, targets = data.contents.batch([data.names.index("row 1"), data.names.index("row 2")], None, 0, 0)
    assert inputs["input_ids"].tolist() == [[2, 4, 6, 8, 7, 12, 13, 3], [2, 5, 9, 7, 14, 3, 0, 0]]
    assert targets.tolist() == [
        [-100, 0, 2, -100, 0, 1, 3, -100],
        [-100, 2, -100, 0, 0, -100, -100, -100],
    ]
    task = token_classification(data.labels)
    assert task.truths((inputs, targets)) == [(0, 2, 0, 1, 3), (2, 0, 0)]


def test_splits_hold_every_kind_and_all_targets(tiny_tokenizer: Path) -> None:
    data = loaded(examples(many(60)), tiny_tokenizer)
    for split in ("train", "selection", "certification"):
        assert {0, 1, 2, 3} <= set(data.targets(split).flatten().tolist())
    served = [targets for _, targets in data.bucketed("train", 8)[1]]
    assert sum(len(targets) for targets in served) == data.n("train")


def test_the_fingerprint_speaks_of_tags_too(tiny_tokenizer: Path) -> None:
    rows = many(60)
    other = [(words, tuple("B-PET" if tag == "B-LOC" else tag for tag in tags)) for words, tags in rows]
    first, changed = (loaded(examples(found), tiny_tokenizer) for found in (rows, [*rows[1:], other[0]]))
    again = loaded(examples(rows[::-1]), tiny_tokenizer)
    splits = ("train", "selection", "certification")
    assert [again.split(s).fingerprint for s in splits] == [first.split(s).fingerprint for s in splits]
    assert [changed.split(s).fingerprint for s in splits] != [first.split(s).fingerprint for s in splits]


def test_words_cut_off_and_words_without_tokens_are_counted(tiny_tokenizer: Path) -> None:
    rows = [*many(30), (("a",) * 30, ("O",) * 30), (("cat", "\u200b", "sat"), ("B-PET", "O", "O"))]
    data = loaded(examples(rows), tiny_tokenizer)
    said = " ".join(data.remarks)
    assert "8 words lie beyond 24 tokens" in said
    assert "1 words make no token" in said
    row = data.contents.answers.row(data.names.index("row 32")).tolist()  # type: ignore[union-attr]
    assert row == [-100, data.labels.index("B-PET"), 0, -100]


def test_alignment_counts_lost_words_at_both_ends() -> None:
    places: list[tuple[list[int | None], bool]] = [
        ([None, 1, 1, 2, None], False),
        ([0, 0], True),
        ([], False),
    ]
    found = align([("A", "B", "C", "D"), ("A", "B", "C"), ("A",)], iter(places), ("A", "B", "C", "D"))
    assert found.tags.row(0).tolist() == [-100, 1, -100, 2, -100]
    assert found.tags.row(1).tolist() == [0, -100]
    assert (found.beyond, found.vanished) == (2, 3)


def test_rows_that_do_not_match_are_named_or_left_out(tiny_tokenizer: Path) -> None:
    rows = [*many(30), (("a", "cat"), ("O",)), ((), ()), (("\ud83d",), ("O",))]
    with pytest.raises(
        DataError, match=r"(?s)row 31: it has 2 words and 1 tags.*32: it has no words.*33: it holds half"
    ):
        loaded(examples(rows), tiny_tokenizer)
    data = loaded(examples(rows), tiny_tokenizer, skip_bad=True)
    assert len(data.bad) == 3
    text = examples(many(30)).examples[0]._replace(content="a cat")
    found = examples(many(30))
    with pytest.raises(DataError, match="not one per word"):
        loaded(
            Examples(name="x", source="x", licence="", examples=(text,), labels=found.labels), tiny_tokenizer
        )


def test_a_tag_that_only_the_test_part_has_is_refused(tiny_tokenizer: Path) -> None:
    rows = [*many(60), *((("new", *("a",) * i), ("B-NEW", *("O",) * i)) for i in range(20, 23))]
    parts = ["train"] * 45 + ["test"] * 18
    with pytest.raises(DataError, match="'B-NEW' are in the certification split and not in training"):
        loaded(examples(rows, parts), tiny_tokenizer)


def test_strata_put_rare_kinds_together_and_never_stand_alone() -> None:
    found = examples([*many(30), (("york",), ("B-RARE",))]).examples
    keys = [bytes([n]) for n in range(31)]
    strata, classes = stratify(found, keys, 1)
    assert classes == ("LOC", "PET", "no entity")
    assert np.bincount(strata).tolist() == [10, 10, 11]
    alike = [example for example in found if "B-LOC" in example.label]
    strata, classes = stratify(alike, keys[: len(alike)], 1)
    assert (classes, np.bincount(strata).tolist()) == (("long", "short"), [5, 5])


def test_copies_stay_together_and_contradictions_are_counted(tiny_tokenizer: Path) -> None:
    rows = many(30)
    again = [*rows, *rows[:10], (rows[1][0], ("O",) * len(rows[1][0]))]
    data = loaded(examples(again), tiny_tokenizer)
    assert (data.duplicates, data.contradictions) == (11, 1)


def test_byte_level_tokenizers_get_words_as_behind_spaces(tmp_path: Path) -> None:
    tokenizers: Any = pytest.importorskip("tokenizers")
    transformers: Any = pytest.importorskip("transformers")
    letters = [*tokenizers.pre_tokenizers.ByteLevel.alphabet()]
    letters = ["<|end|>", *sorted(letters), "at", "Ġc", "Ġcat"]
    merges = [("a", "t"), ("Ġ", "c"), ("Ġc", "at")]
    tokenizer = transformers.GPT2Tokenizer(
        vocab={piece: n for n, piece in enumerate(letters)},
        merges=merges,
        unk_token="<|end|>",
        bos_token="<|end|>",
        eos_token="<|end|>",
    )
    tokenizer.save_pretrained(tmp_path)
    rows = [
        (("cat", *"xyz"[: 1 + i % 3] * i), ("B-PET", *("O",) * len("xyz"[: 1 + i % 3] * i))) for i in range(8)
    ]
    reads = Texts(tokenizer=str(tmp_path), max_length=64, vocabulary=len(letters))
    data = token_data_of(examples([*rows, *many(9)]), reads, Options())
    first = data.contents.tokens.ids.row(data.names.index("row 1")).tolist()
    assert first == [letters.index("Ġcat")]
