"""Folders and tables of texts, words, clips and transcripts."""

import json
from pathlib import Path

import pytest

from penjing.core import DataError, UsageError
from penjing.tasks import Columns
from penjing.tasks._origin import find_examples

NONE = Columns()


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_by_usual_columns_and_by_option(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", "id,text,label,group\n1,how far,a,x\n2,why so,b,\n")
    found = find_examples(str(table), "texts", NONE)
    assert [(e.content, e.label, e.group) for e in found.examples] == [
        ("how far", "a", "x"),
        ("why so", "b", None),
    ]
    assert found.examples[1].name == f"row 2 of {table}"
    by_id = find_examples(str(table), "texts", Columns(text="text", label="id"))
    assert by_id.labels == ("1", "2")


def test_pairs_are_found_or_named(tmp_path: Path) -> None:
    rows = [{"premise": "it rains", "hypothesis": "it is wet", "label": "yes", "other": "dry"}]
    table = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert find_examples(str(table), "texts", NONE).examples[0].content == ("it rains", "it is wet")
    named = find_examples(str(table), "texts", Columns(text="premise", pair="other"))
    assert named.examples[0].content == ("it rains", "dry")
    with pytest.raises(DataError, match=r"no column 'third'.*Its columns: premise, hypothesis.*pair_column"):
        find_examples(str(table), "texts", Columns(pair="third"))


def test_words_and_tags_as_lists_json_and_text(tmp_path: Path) -> None:
    rows = [
        {"tokens": ["in", "Rome"], "tags": ["O", "B-LOC"]},
        {"tokens": "in Rome", "tags": "O B-LOC"},
        {"tokens": '["in", "Rome"]', "tags": '["O", "B-LOC"]'},
    ]
    table = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    found = find_examples(str(table), "words", NONE)
    assert {(e.content, e.label) for e in found.examples} == {(("in", "Rome"), ("O", "B-LOC"))}
    assert found.labels == ("B-LOC", "O")


def test_class_folders_of_texts_and_clips(tmp_path: Path) -> None:
    write(tmp_path / "t" / "good" / "1.txt", "fine film")
    write(tmp_path / "t" / "bad" / "1.txt", "dull film")
    found = find_examples(str(tmp_path / "t"), "texts", NONE)
    assert [(e.content, e.label) for e in found.examples] == [("dull film", "bad"), ("fine film", "good")]
    write(tmp_path / "s" / "train" / "yes" / "1.WAV", "")
    write(tmp_path / "s" / "test" / "yes" / "2.flac", "")
    clips = find_examples(str(tmp_path / "s"), "sounds", NONE).examples
    assert [(e.name, e.part) for e in clips] == [("test/yes/2.flac", "test"), ("train/yes/1.WAV", "train")]


def test_transcripts_beside_clips_or_in_a_table(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.wav", "")
    with pytest.raises(DataError, match=r"1\.wav has no transcript 1\.txt beside it.*metadata\.csv"):
        find_examples(str(tmp_path / "a"), "speech", NONE)
    write(tmp_path / "a" / "1.txt", "one two\n")
    assert find_examples(str(tmp_path / "a"), "speech", NONE).examples[0].label == "one two"
    write(tmp_path / "a" / "metadata.csv", "file_name,transcription\n1.wav,two\n")
    found = find_examples(str(tmp_path / "a"), "speech", NONE).examples[0]
    assert (found.content, found.label) == (tmp_path / "a" / "1.wav", "two")


@pytest.mark.parametrize(
    ("kind", "content", "says"),
    [
        (
            "texts",
            "words,label\na,b\n",
            r"no column of texts \(one of text,.*Its columns: words, label.*text_column",
        ),
        ("texts", "text,label\n ,b\n", "Column 'text' is empty in row 1"),
        ("speech", "path,label\na.wav,x\n", r"no column of labels \(one of transcript"),
    ],
)
def test_tables_that_cannot_be_used(kind: str, content: str, says: str, tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", content)
    with pytest.raises(DataError, match=says):
        find_examples(str(table), kind, NONE)


def test_a_built_in_set_of_another_kind_is_told() -> None:
    with pytest.raises(DataError, match=r"builtin:digits holds pictures and this task needs texts"):
        find_examples("builtin:digits", "texts", NONE)
    with pytest.raises(DataError, match=r"Data 'nowhere' does not exist.*builtin:digits"):
        find_examples("nowhere", "pictures", NONE)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"text": ["so", "far"], "label": "a"}], r"'text' holds a list in row 1 .*Fix"),
        ([{"text": "so far", "label": {"name": "a"}}], r"'label' holds an object in row 1 .*Fix"),
        (
            [{"text": "so", "label": 1.0}, {"text": "far", "label": float("nan")}],
            r"'label' is empty in row 2",
        ),
        ([{"text": float("nan"), "label": 1}], r"'text' is empty in row 1"),
    ],
    ids=["text", "label", "nan", "nan text"],
)
def test_cells_that_are_no_text_and_no_label(tmp_path: Path, rows: list[object], says: str) -> None:
    table = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=says):
        find_examples(str(table), "texts", NONE)


@pytest.mark.parametrize("word", [None, "", ["a"]])
def test_entries_that_are_no_words(tmp_path: Path, word: object) -> None:
    table = write(tmp_path / "a.jsonl", json.dumps({"tokens": ["in", word], "tags": ["O", "O"]}))
    with pytest.raises(DataError, match=r"'tokens' has an entry that is no word in row 1 .*Fix"):
        find_examples(str(table), "words", NONE)


def test_lines_of_jsonl_end_at_newlines_alone(tmp_path: Path) -> None:
    text = "one\u2028two\x85three"
    table = write(tmp_path / "a.jsonl", json.dumps({"text": text, "label": "x"}, ensure_ascii=False) + "\r\n")
    assert find_examples(str(table), "texts", NONE).examples[0].content == text


def test_json_that_is_too_deep_is_told_by_its_line(tmp_path: Path) -> None:
    table = write(tmp_path / "a.jsonl", "[" * 100_000)
    with pytest.raises(DataError, match=r"Line 1 of .*Fix"):
        find_examples(str(table), "texts", NONE)


def test_a_field_of_a_csv_may_be_long(tmp_path: Path) -> None:
    table = write(tmp_path / "a.csv", f"text,label\n{'x' * 200_000},a\n")
    assert len(find_examples(str(table), "texts", NONE).examples[0].content) == 200_000


@pytest.mark.parametrize("within", ["folder", "builtin"])
def test_columns_of_what_has_none_are_refused(tmp_path: Path, within: str) -> None:
    write(tmp_path / "t" / "good" / "1.txt", "fine film")
    write(tmp_path / "t" / "bad" / "1.txt", "dull film")
    data = str(tmp_path / "t") if within == "folder" else "builtin:trec"
    with pytest.raises(UsageError, match=r"label_column \(stars\).*Fix: leave it out"):
        find_examples(data, "texts", Columns(label="stars"))
