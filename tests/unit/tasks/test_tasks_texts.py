"""Texts as batches of tokens: every token accounted for, nothing cut or left out in silence."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from penjing.core import DataError, Pictures, Texts, UsageError
from penjing.tasks import _tokenizer, reads_for
from penjing.tasks._buckets import bucketed_batches, in_batches, typical
from penjing.tasks._examples import Example, Examples, ordered_labels
from penjing.tasks._labelled import Labelled
from penjing.tasks._prepare import Options
from penjing.tasks._ragged import ragged
from penjing.tasks._texts import TokenRows, text_data_of
from penjing.tasks._tokenizer import load_tokenizer, tokens_disagree

ALL = ("input_ids", "attention_mask", "token_type_ids")


def examples(rows: Sequence[tuple[Any, str]], parts: Sequence[str | None] | None = None) -> Examples:
    named = tuple(
        Example(content=content, label=label, name=f"row {n}", part=parts[n - 1] if parts else None)
        for n, (content, label) in enumerate(rows, start=1)
    )
    labels = ordered_labels(label for _, label in rows)
    return Examples(name="x", source="x.csv", licence="none", examples=named, labels=labels)


def many(n: int) -> Examples:
    return examples(
        [(f"{'a ' * (i % 9)}{'cat' if i % 2 else 'dog'} {'s' * i}", f"c{i % 2}") for i in range(n)]
    )


def loaded(
    found: Examples, folder: Path, keywords: tuple[str, ...] = ALL, **options: Any
) -> Labelled[TokenRows]:
    reads = Texts(tokenizer=str(folder), max_length=16, vocabulary=15, keywords=keywords)
    return text_data_of(found, reads, Options(**options))


def test_a_batch_holds_ids_mask_and_types_of_pairs(tiny_tokenizer: Path) -> None:
    rows = [(("a cat", "sat"), "x"), (("dogs", "who ?"), "y")] * 10
    unlike = [((f"{first}{' a' * i}", second), label) for i, ((first, second), label) in enumerate(rows[:10])]
    data = loaded(examples(unlike), tiny_tokenizer)
    place = data.names.index("row 2")
    inputs, targets = data.contents.batch([place, data.names.index("row 1")], None, 0, 0)
    assert inputs["input_ids"].tolist() == [[2, 6, 8, 4, 3, 10, 11, 3], [2, 4, 5, 3, 7, 3, 0, 0]]
    assert inputs["attention_mask"].tolist() == [[1] * 8, [1] * 6 + [0, 0]]
    assert inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0]]
    assert targets.tolist() == [1, 0]


def test_only_asked_keywords_are_given(tiny_tokenizer: Path) -> None:
    data = loaded(many(20), tiny_tokenizer, keywords=("input_ids",))
    inputs, _ = next(data.batches("train", 4))
    assert set(inputs) == {"input_ids"}
    with pytest.raises(UsageError, match="bbox"):
        loaded(many(20), tiny_tokenizer, keywords=("input_ids", "bbox"))


def test_batches_cover_the_split_once_in_its_order(tiny_tokenizer: Path) -> None:
    data = loaded(many(81), tiny_tokenizer)
    batches = list(data.batches("train", 16))
    assert torch.equal(torch.cat([targets for _, targets in batches]), data.targets("train"))
    assert len(batches[-1][1]) > 1
    lengths = torch.cat([inputs["attention_mask"].sum(1) for inputs, _ in batches])
    assert lengths.tolist() == data.contents.tokens.ids.lengths[list(data.train.indices)].tolist()


def test_shuffled_batches_are_a_pure_function_and_hold_everything_once(tiny_tokenizer: Path) -> None:
    data = loaded(many(81), tiny_tokenizer)

    def drawn(seed: int, epoch: int) -> list[list[int]]:
        found = data.batches("train", 8, seed=seed, epoch=epoch, shuffle=True)
        return [inputs["input_ids"].flatten().tolist() for inputs, _ in found]

    assert drawn(1, 2) == drawn(1, 2)
    assert drawn(1, 2) != drawn(1, 3)
    assert drawn(1, 2) != drawn(2, 2)
    counted = sum(len(targets) for _, targets in data.batches("train", 8, shuffle=True))
    assert counted == data.n("train")


def test_buckets_hold_each_index_once_and_little_padding() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 100, 1001)
    batches = bucketed_batches(range(1001), lengths, 10, seed=0, epoch=0)
    assert sorted(i for batch in batches for i in batch) == list(range(1001))
    assert min(map(len, batches)) >= 2

    def padded(found: Sequence[Sequence[int]]) -> int:
        return sum(int(lengths[batch].max()) * len(batch) for batch in found)

    assert (
        padded(batches)
        < 1.1 * lengths.sum()
        < 1.6 * lengths.sum()
        < padded(list(in_batches(range(1001), 10)))
    )


def test_evaluation_order_leads_back_to_the_split(tiny_tokenizer: Path) -> None:
    data = loaded(many(60), tiny_tokenizer)
    order, batches = data.bucketed("train", 8)
    served = [(inputs["attention_mask"].sum(1), targets) for inputs, targets in batches]
    lengths = torch.cat([length for length, _ in served])
    assert lengths.tolist() == sorted(lengths.tolist())
    back = torch.empty(data.n("train"), dtype=torch.int64)
    back[order] = torch.cat([targets for _, targets in served])
    assert torch.equal(back, data.targets("train"))


def test_the_example_is_typical_framed_and_padded_in_its_last_row(tiny_tokenizer: Path) -> None:
    data = loaded(many(60), tiny_tokenizer)
    first, again = data.example(3), data.example(3)
    assert data.size == (typical(data.contents.tokens.ids.lengths),)
    assert first["input_ids"].shape == (3, *data.size)
    assert torch.equal(first["input_ids"], again["input_ids"])
    assert first["attention_mask"].sum(1).tolist()[:2] == [data.size[0]] * 2
    last = int(first["attention_mask"][2].sum())
    assert 0 < last < data.size[0]
    assert first["input_ids"][2, last:].tolist() == [0] * (data.size[0] - last)
    for row, length in zip(first["input_ids"].tolist(), [*data.size * 2, last], strict=True):
        assert (row[0], row[length - 1]) == (2, 3)
        assert min(row[1 : length - 1]) > 3
    assert data.example(1)["attention_mask"].all()


def test_padding_follows_the_tokenizers_side(tiny_tokenizer: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_tokenizer, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"padding_side": "left"}))
    data = loaded(many(20), tmp_path)
    inputs, _ = next(data.batches("train", 12))
    width = inputs["input_ids"].shape[1]
    for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True):
        gap = width - sum(mask)
        assert mask == [0] * gap + [1] * (width - gap)
        assert (ids[:gap], ids[gap]) == ([0] * gap, 2)
    last = data.example(2)["attention_mask"][1].tolist()
    assert (last[0], last[-1]) == (0, 1)


def test_long_and_unknown_texts_are_counted(tiny_tokenizer: Path) -> None:
    rows = [("a " * (5 + i), "xy"[i % 2]) for i in range(20)] + [("zebra", "x"), ("zulu", "y")]
    data = loaded(examples(rows), tiny_tokenizer, max_length=10)
    assert int(data.contents.tokens.ids.lengths.max()) == 10
    said = " ".join(data.remarks)
    assert "16 of 22 texts are longer than 10 tokens" in said
    assert "2 of 22 texts hold no token" in said


def test_copies_do_not_straddle_and_contradictions_are_counted(tiny_tokenizer: Path) -> None:
    base = many(40)
    rows = [(e.content, str(e.label)) for e in base.examples]
    data = loaded(examples([*rows, *rows[:20], (rows[0][0], "c1")]), tiny_tokenizer)
    assert (data.duplicates, data.contradictions) == (21, 1)
    texts = {f"row {n}": text for n, (text, _) in enumerate([*rows, *rows[:20], rows[0]], start=1)}
    parts = (data.train, data.selection, data.certification)
    split = [{texts[data.names[i]] for i in part.indices} for part in parts]
    assert all(split)
    assert sum(map(len, split)) == len(set.union(*split))


def test_empty_texts_are_refused_by_name_or_left_out(tiny_tokenizer: Path) -> None:
    rows = [(f"cat {'s' * i}", f"c{i % 2}") for i in range(20)]
    rows[4], rows[7] = ("  \n", "c0"), ("", "c1")
    with pytest.raises(DataError, match=r"(?s)\(2\).*row 5: the text is empty.*row 8"):
        loaded(examples(rows), tiny_tokenizer)
    data = loaded(examples(rows), tiny_tokenizer, skip_bad=True)
    assert data.bad == ("row 5: the text is empty", "row 8: the text is empty")
    assert sum(data.n(split) for split in ("train", "selection", "certification")) == 18


def test_half_a_character_is_refused_by_name(tiny_tokenizer: Path) -> None:
    rows = [(f"cat {'s' * i}", f"c{i % 2}") for i in range(20)]
    with pytest.raises(DataError, match="row 21: it holds half a character"):
        loaded(examples([*rows, ("a \ud83d cat", "c0")]), tiny_tokenizer)
    whole = loaded(examples([*rows, ("a \U0001f600 cat \x00\u200b", "c0")]), tiny_tokenizer)
    assert not whole.bad


def test_an_unknown_label_in_the_test_part_is_refused(tiny_tokenizer: Path) -> None:
    rows = [(f"cat {'s' * i}", f"c{i % 2}") for i in range(20)] + [
        ("who ?", "new"),
        ("dog", "c0"),
        ("sat", "c1"),
    ]
    with pytest.raises(DataError, match="'new'"):
        loaded(examples(rows, ["train"] * 20 + ["test"] * 3), tiny_tokenizer)


def test_a_tokenizer_that_does_not_fit_is_refused_with_both_numbers(tiny_tokenizer: Path) -> None:
    reads = Texts(tokenizer=str(tiny_tokenizer), max_length=16, vocabulary=12)
    with pytest.raises(DataError, match=r"up to 14.*12 tokens"):
        text_data_of(many(20), reads, Options())
    roomy = Texts(tokenizer=str(tiny_tokenizer), max_length=16, vocabulary=400)
    assert "16 different tokens" in text_data_of(many(20), roomy, Options()).remarks[0]


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "./nowhere"])
def test_a_missing_tokenizer_says_what_to_do(name: str) -> None:
    pytest.importorskip("transformers")
    reads = Texts(tokenizer=name, max_length=16, vocabulary=12)
    with pytest.raises(DataError, match=r"Fix: name"):
        text_data_of(many(20), reads, Options())


def test_a_tokenizer_of_a_hub_out_of_reach_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(_tokenizer, "reachable", lambda url: "no answer within 4 s")
    with pytest.raises(
        DataError, match=r"hub cannot be reached: no answer within 4 s\)\. Fix: name a folder"
    ):
        load_tokenizer(Texts(tokenizer="somebody/nothing", max_length=8, vocabulary=9))


def test_a_folder_that_wants_its_own_code_is_not_run(tiny_tokenizer: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    marker = tmp_path / "ran"
    (tmp_path / "own.py").write_text(f"open({str(marker)!r}, 'w')\nclass Own: pass\n")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["own.Own", null]}}')
    with pytest.raises(DataError, match="cannot be loaded"):
        loaded(many(20), tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("given", "match"), [({"max_length": 17}, "at most 16"), ({"max_length": 3}, "4 to 16")]
)
def test_a_length_the_network_cannot_read_is_refused(tiny_tokenizer: Path, given: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        loaded(many(20), tiny_tokenizer, **given)


def test_augmentation_of_texts_is_refused(tiny_tokenizer: Path) -> None:
    data = loaded(many(20), tiny_tokenizer)
    assert len(list(data.batches("train", 4, augment=True))) == 3
    with pytest.raises(UsageError, match="light"):
        data.batches("train", 4, augment="light")
    with pytest.raises(UsageError, match="light"):
        loaded(many(20), tiny_tokenizer, augmentation="light")
    with pytest.raises(UsageError, match="split"):
        data.n("test")
    with pytest.raises(UsageError, match="batch_size"):
        data.batches("train", 0)


def test_rows_of_any_length_are_padded_on_either_side() -> None:
    rows = ragged([[1, 2, 3], [], [4]])
    assert rows.padded([2, 0, 1], 9).tolist() == [[4, 9, 9], [1, 2, 3], [9, 9, 9]]
    assert rows.padded([2, 1], 9, left=True).tolist() == [[4], [9]]
    assert rows.lengths.tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("lengths", "wanted"), [([1, 2, 3, 100], 8), ([9], 16), ([8, 8, 8, 9], 8), ([1, 9], 16)]
)
def test_the_typical_length(lengths: list[int], wanted: int) -> None:
    assert typical(np.array(lengths)) == wanted


def test_tokenizers_with_other_ids_disagree(tiny_tokenizer: Path, tmp_path: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    shutil.copytree(tiny_tokenizer, tmp_path / "same")
    vocabulary = transformers.AutoTokenizer.from_pretrained(tiny_tokenizer).get_vocab()
    swapped = vocabulary | {"cat": vocabulary["dog"], "dog": vocabulary["cat"]}
    transformers.BertTokenizer(vocab=swapped).save_pretrained(tmp_path / "other")
    own, same, other, untold = (
        Texts(tokenizer=str(name) if name else "", max_length=16, vocabulary=15)
        for name in (tiny_tokenizer, tmp_path / "same", tmp_path / "other", None)
    )
    assert tokens_disagree(own, same) == tokens_disagree(own, untold) == ""
    assert tokens_disagree(own, other) == "id 5 is 'cat' to one and 'dog' to the other"


def test_a_network_that_pads_with_another_id_is_refused(tiny_tokenizer: Path) -> None:
    reads = Texts(tokenizer=str(tiny_tokenizer), max_length=16, vocabulary=15, pad=0)
    assert text_data_of(many(20), reads, Options()).n("train") > 0
    with pytest.raises(DataError, match=r"pads with id 0 and the network with id 5.*pad_token_id: 0"):
        text_data_of(many(20), replace(reads, pad=5), Options())


def test_a_network_of_ones_own_is_told_how_to_say_what_it_reads() -> None:
    pictures = Pictures(size=(3, 8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(UsageError, match=r"model\.reads = penjing\.Texts\(\.\.\.\)"):
        reads_for("text-classification", pictures, "file:bag.py:Bag")
    with pytest.raises(UsageError, match=r"another --task$"):
        reads_for("text-classification", pictures, "timm:resnet18")
